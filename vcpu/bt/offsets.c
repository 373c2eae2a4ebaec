/* Asserts the offsets that generated code and glue.S use. */
#include "vcpu/bt/offsets.h"

#include "vcpu/vcpu.h"

#define CHECK(field, off) _Static_assert(offsetof(struct vcpu, field) == (off), #field)

CHECK(regs, V_REGS);
CHECK(host_regs, V_HOST_REGS);
CHECK(rip, V_RIP);
CHECK(ip_page, V_IP_PAGE);
CHECK(engine_sp, V_ENGINE_SP);
CHECK(self, V_SELF);
CHECK(resume, V_RESUME);
CHECK(site, V_SITE);
CHECK(flags, V_FLAGS);
CHECK(df, V_DF);
CHECK(iflag, V_IFLAG);
CHECK(pending, V_PENDING);
CHECK(kick, V_KICK);
CHECK(host_flags, V_HOST_FLAGS);
