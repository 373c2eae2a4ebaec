/*
 * The machine's DSDT.  Addresses are those of chipset/pci.h and chipset/pm.h.
 */
DefinitionBlock ("dsdt.aml", "DSDT", 2, "HVX   ", "HVXPC   ", 1)
{
	Name (\_S5, Package () { 5, 5, 0, 0 }) /* PM_S5_TYPE */

	Name (PICM, Zero) /* 1: the guest uses the IOAPIC */
	Method (\_PIC, 1) { PICM = Arg0 }

	Scope (\_SB)
	{
		Device (PCI0)
		{
			Name (_HID, EisaId ("PNP0A08"))
			Name (_CID, EisaId ("PNP0A03"))
			Name (_UID, Zero)
			Name (_BBN, Zero)
			Name (_CRS, ResourceTemplate ()
			{
				WordBusNumber (ResourceProducer, MinFixed, MaxFixed, PosDecode,
					0, 0, 255, 0, 256)
				IO (Decode16, 0x0cf8, 0x0cf8, 1, 8)
				WordIO (ResourceProducer, MinFixed, MaxFixed, PosDecode, EntireRange,
					0, 0x0000, 0x0cf7, 0, 0x0cf8)
				WordIO (ResourceProducer, MinFixed, MaxFixed, PosDecode, EntireRange,
					0, 0x0d00, 0xffff, 0, 0xf300)
				DWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed, NonCacheable, ReadWrite,
					0, 0xc0000000, 0xfebfffff, 0, 0x3ec00000)
				QWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed, NonCacheable, ReadWrite,
					0, 0x7000000000, 0x7fffffffff, 0, 0x1000000000)
			})

			/* Grants nothing: no hot-plug, no power management, no error reporting */
			Method (_OSC, 4)
			{
				CreateDWordField (Arg3, 0, STAT)
				If (Arg0 == ToUUID ("33db4d5b-1ff7-401c-9657-7441c03dd766"))
				{
					CreateDWordField (Arg3, 8, CTRL)
					CTRL = Zero
				}
				Else
				{
					STAT |= 4
				}
				Return (Arg3)
			}

			/*
			 * Line (device + pin) mod 4 goes to GSI 16 + line, or with the
			 * 8259s to IRQ 10 or 11, as the LPC bridge routes it from reset.
			 */
			Name (PRTC, Package (128) {})
			Name (PRTM, 0xff) /* PICM when PRTC was filled in: guests evaluate this often */
			Method (_PRT, 0, Serialized)
			{
				If (PRTM == PICM)
				{
					Return (PRTC)
				}
				Local1 = Zero
				While (Local1 < 128)
				{
					Local2 = Local1 >> 2             /* device */
					Local3 = (Local2 + Local1) & 3   /* line of pin Local1 & 3 */
					Local4 = Package (4) { 0, 0, 0, 0 }
					Local4[0] = (Local2 << 16) | 0xffff
					Local4[1] = Local1 & 3
					If (PICM)
					{
						Local4[3] = 16 + Local3
					}
					Else
					{
						Local4[3] = 10 + (Local3 & 1)
					}
					PRTC[Local1] = Local4
					Local1++
				}
				PRTM = PICM
				Return (PRTC)
			}

			Device (LPC)
			{
				Name (_ADR, 0x001f0000)

				Device (PIC)
				{
					Name (_HID, EisaId ("PNP0000"))
					Name (_CRS, ResourceTemplate ()
					{
						IO (Decode16, 0x0020, 0x0020, 0, 2)
						IO (Decode16, 0x00a0, 0x00a0, 0, 2)
						IO (Decode16, 0x04d0, 0x04d0, 0, 2)
						IRQNoFlags () { 2 }
					})
				}

				Device (PIT)
				{
					Name (_HID, EisaId ("PNP0100"))
					Name (_CRS, ResourceTemplate ()
					{
						IO (Decode16, 0x0040, 0x0040, 0, 4)
						IRQNoFlags () { 0 }
					})
				}

				Device (RTC)
				{
					Name (_HID, EisaId ("PNP0B00"))
					Name (_CRS, ResourceTemplate ()
					{
						IO (Decode16, 0x0070, 0x0070, 0, 2)
						IRQNoFlags () { 8 }
					})
				}

				Device (COM1)
				{
					Name (_HID, EisaId ("PNP0501"))
					Name (_UID, 1)
					Name (_CRS, ResourceTemplate ()
					{
						IO (Decode16, 0x03f8, 0x03f8, 0, 8)
						IRQNoFlags () { 4 }
					})
				}

				Device (COM2)
				{
					Name (_HID, EisaId ("PNP0501"))
					Name (_UID, 2)
					Name (_CRS, ResourceTemplate ()
					{
						IO (Decode16, 0x02f8, 0x02f8, 0, 8)
						IRQNoFlags () { 3 }
					})
				}

				Device (COM3)
				{
					Name (_HID, EisaId ("PNP0501"))
					Name (_UID, 3)
					Name (_CRS, ResourceTemplate ()
					{
						IO (Decode16, 0x03e8, 0x03e8, 0, 8)
						IRQNoFlags () { 4 }
					})
				}

				Device (COM4)
				{
					Name (_HID, EisaId ("PNP0501"))
					Name (_UID, 4)
					Name (_CRS, ResourceTemplate ()
					{
						IO (Decode16, 0x02e8, 0x02e8, 0, 8)
						IRQNoFlags () { 3 }
					})
				}
			}
		}

		/* What is decoded but belongs to no driver: ECAM, PM registers */
		Device (MBRD)
		{
			Name (_HID, EisaId ("PNP0C02"))
			Name (_UID, Zero)
			Name (_CRS, ResourceTemplate ()
			{
				Memory32Fixed (ReadWrite, 0xb0000000, 0x10000000)
				IO (Decode16, 0x0600, 0x0600, 0, 0x80)
				IO (Decode16, 0x0080, 0x0080, 0, 1)
				IO (Decode16, 0x0092, 0x0092, 0, 1)
			})
		}
	}
}
