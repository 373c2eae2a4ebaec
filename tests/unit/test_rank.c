/*
 * common/rank: what is out of order ends the process, and says what.
 * Invariant: what is to fail does so in a child.
 */
#include <CUnit/CUnit.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/log.h"
#include "common/rank.h"

CU_ErrorCode suite_rank(void);

static const char locks[8]; /* their addresses */

static void take(enum lock_rank rank, int i)
{
	rank_taking(rank, &locks[i]);
	rank_taken(rank, &locks[i]);
}

/* What @fn says before it is aborted; empty when it is not. */
static const char *said(void (*fn)(void))
{
	static char text[512];
	size_t n = 0;
	int p[2], status;

	CU_ASSERT_EQUAL_FATAL(pipe(p), 0);
	pid_t pid = fork();
	if (!pid) {
		setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
		signal(SIGABRT, SIG_DFL);
		log_set_fd(p[1]);
		fn();
		_exit(0);
	}
	close(p[1]);
	for (ssize_t m; n < sizeof text - 1 && (m = read(p[0], text + n, sizeof text - 1 - n)) > 0;)
		n += (size_t)m;
	text[n] = '\0';
	close(p[0]);
	CU_ASSERT_EQUAL_FATAL(waitpid(pid, &status, 0), pid);
	return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT ? text : "";
}

static void in_order(void)
{
	for (int turn = 0; turn < 2; turn++) {
		take(RANK_WORLD, 0);
		take(RANK_CPU, 1);
		take(RANK_CPU, 2);
		take(RANK_BT, 3);
		take(RANK_WINDOW, 4);
		rank_dropped(RANK_CPU, &locks[1]); /* not the last one taken */
		rank_dropped(RANK_WINDOW, &locks[4]);
		rank_dropped(RANK_BT, &locks[3]);
		rank_dropped(RANK_CPU, &locks[2]);
		rank_dropped(RANK_WORLD, &locks[0]);
	}
}

static void reversed(void)
{
	take(RANK_WINDOW, 0);
	take(RANK_BT, 1);
}

static void after_a_gap(void)
{
	take(RANK_CPU, 0);
	take(RANK_BT, 1);
	rank_dropped(RANK_CPU, &locks[0]);
	rank_taking(RANK_CPU, &locks[0]);
}

static void two_cpus(void)
{
	take(RANK_CPU, 0);
	rank_taking(RANK_CPU, &locks[1]);
}

static void again(void)
{
	take(RANK_PLATFORM, 0);
	rank_taking(RANK_PLATFORM, &locks[0]);
}

static void not_held(void)
{
	take(RANK_BT, 0);
	rank_dropped(RANK_BT, &locks[1]);
}

static void test_order(void)
{
	CU_ASSERT_STRING_EQUAL(said(in_order), "");
	CU_ASSERT_PTR_NOT_NULL(
		strstr(said(reversed), "the translations' lock is taken while the window's lock is held"));
	CU_ASSERT_PTR_NOT_NULL(strstr(said(after_a_gap), "a CPU is taken while the translations' lock is held"));
	CU_ASSERT_PTR_NOT_NULL(strstr(said(two_cpus), "a CPU is taken while a CPU is held"));
	CU_ASSERT_PTR_NOT_NULL(strstr(said(again), "the platform's lock is taken again"));
	CU_ASSERT_PTR_NOT_NULL(strstr(said(not_held), "the translations' lock is let go"));
}

/* In such a build calls of libpthread's functions are followed by themselves. */
#ifdef HVX_DEBUG_LOCKS
static pthread_mutex_t outer = PTHREAD_MUTEX_INITIALIZER, inner = PTHREAD_MUTEX_INITIALIZER,
		       nameless = PTHREAD_MUTEX_INITIALIZER;

static void mutexes_in_order(void)
{
	rank_give(&outer, RANK_CARDS);
	rank_give(&inner, RANK_PLATFORM);
	pthread_mutex_lock(&outer);
	if (!pthread_mutex_trylock(&inner))
		pthread_mutex_unlock(&inner);
	pthread_mutex_unlock(&outer);
}

static void mutexes_reversed(void)
{
	mutexes_in_order();
	pthread_mutex_lock(&inner);
	pthread_mutex_lock(&outer);
}

static void without_rank(void)
{
	pthread_mutex_lock(&nameless);
}

static void test_mutexes(void)
{
	CU_ASSERT_STRING_EQUAL(said(mutexes_in_order), "");
	CU_ASSERT_PTR_NOT_NULL(
		strstr(said(mutexes_reversed), "the cards' lock is taken while the platform's lock is held"));
	CU_ASSERT_PTR_NOT_NULL(strstr(said(without_rank), "without a rank"));
}
#endif

CU_ErrorCode suite_rank(void)
{
	CU_pSuite s = CU_add_suite("order of locks", NULL, NULL);

	CU_add_test(s, "ranks", test_order);
#ifdef HVX_DEBUG_LOCKS
	CU_add_test(s, "mutexes", test_mutexes);
#endif
	return CU_get_error();
}
