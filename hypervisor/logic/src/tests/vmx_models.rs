//! Capability MSRs of real processors: the two that are also Bochs models as its CPU database
//! records them, the others as VirtualBox's does. Where there are TRUE MSRs, the values are theirs.
//! IA32_FEATURE_CONTROL is 5 (locked, VMX on outside SMX) everywhere.

use crate::vmx::VmxCapabilities;

/// Xeon X5482 (Penryn, 2007): no EPT, no TRUE MSRs, no IA32_EFER in the VMCS.
pub const PENRYN: VmxCapabilities = VmxCapabilities {
    vmx: true,
    feature_control: 5,
    basic: 0x5a_0800_0000_000d,
    pin: 0x3f_0000_0016,
    primary: 0xf7f9_fffe_0401_e172,
    exit: 0x3_ffff_0003_6dff,
    entry: 0x3fff_0000_11ff,
    secondary: 0x41_0000_0000,
    ept_vpid: 0,
};

/// Core i5 M 520 (Arrandale, 2010): the first with unrestricted guest; no EPT accessed and dirty
/// flags, no 1 GiB leaves.
pub const ARRANDALE: VmxCapabilities = VmxCapabilities {
    basic: 0xda_0400_0000_000f,
    pin: 0x7f_0000_0016,
    primary: 0xfff9_fffe_0400_6172,
    exit: 0x7f_ffff_0003_6dfb,
    entry: 0xffff_0000_11fb,
    secondary: 0xff_0000_0000,
    ept_vpid: 0xf01_0611_4141,
    ..PENRYN
};

/// Core i7-2635QM (Sandy Bridge, 2011).
pub const SANDY_BRIDGE: VmxCapabilities = VmxCapabilities {
    basic: 0xda_0400_0000_0010,
    pin: 0x7f_0000_0016,
    primary: 0xfff9_fffe_0400_6172,
    exit: 0x7f_ffff_0003_6dfb,
    entry: 0xffff_0000_11fb,
    secondary: 0xff_0000_0000,
    ept_vpid: 0xf01_0611_4141,
    ..PENRYN
};

/// Core i7-5600U (Broadwell, 2015).
pub const BROADWELL: VmxCapabilities = VmxCapabilities {
    basic: 0xda_0400_0000_0012,
    secondary: 0x5_7cff_0000_0000,
    ept_vpid: 0xf01_0633_4141,
    ..SANDY_BRIDGE
};

/// Core i7-6700K (Skylake client, 2015).
pub const SKYLAKE: VmxCapabilities = VmxCapabilities {
    basic: 0xda_0400_0000_0004,
    exit: 0x1ff_ffff_0003_6dfb,
    entry: 0x3_ffff_0000_11fb,
    secondary: 0x1f_fcff_0000_0000,
    ..BROADWELL
};

/// Core i7-7800X (Skylake-X, 2017).
pub const SKYLAKE_X: VmxCapabilities = VmxCapabilities {
    pin: 0xff_0000_0016,
    secondary: 0x25d_3fff_0000_0000,
    ept_vpid: 0xf01_0673_4141,
    ..SKYLAKE
};
