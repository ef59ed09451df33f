//! Capabilities of files, as Linux keeps them in `security.capability` (linux/capability.h). Knows no
//! file.

/// The extended attribute that holds them.
pub const XATTR: &[u8] = b"security.capability";

/// The capabilities of Linux by number, without `CAP_`.
pub const NAMES: [&str; 41] = [
    "chown",
    "dac_override",
    "dac_read_search",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "linux_immutable",
    "net_bind_service",
    "net_broadcast",
    "net_admin",
    "net_raw",
    "ipc_lock",
    "ipc_owner",
    "sys_module",
    "sys_rawio",
    "sys_chroot",
    "sys_ptrace",
    "sys_pacct",
    "sys_admin",
    "sys_boot",
    "sys_nice",
    "sys_resource",
    "sys_time",
    "sys_tty_config",
    "mknod",
    "lease",
    "audit_write",
    "audit_control",
    "setfcap",
    "mac_override",
    "mac_admin",
    "syslog",
    "wake_alarm",
    "block_suspend",
    "audit_read",
    "perfmon",
    "bpf",
    "checkpoint_restore",
];

/// The number of a capability: `net_bind_service`, in any case and with or without `cap_`.
pub fn number(name: &str) -> Option<usize> {
    let name = name.to_ascii_lowercase();
    let name = name.strip_prefix("cap_").unwrap_or(&name);
    NAMES.iter().position(|known| *known == name)
}

/// The name of a capability.
pub fn name(number: usize) -> String {
    NAMES[number].to_string()
}

/// The attribute's value: these capabilities are permitted and in effect, and not inherited (`=ep`).
pub fn value<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<u8> {
    // VFS_CAP_REVISION_2 with VFS_CAP_FLAGS_EFFECTIVE.
    const REVISION: u32 = 0x0200_0001;
    let set = names.into_iter().filter_map(number).fold(0_u64, |set, number| set | 1 << number);
    let words = [REVISION, set as u32, 0, (set >> 32) as u32, 0];
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_is_what_setcap_writes() {
        assert_eq!(value(["net_bind_service"]), b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
        let both = value(["CAP_BPF", "chown"]);
        assert_eq!(both, b"\x01\0\0\x02\x01\0\0\0\0\0\0\0\x80\0\0\0\0\0\0\0");
        assert_eq!(number("Cap_Net_Raw"), Some(13));
        assert_eq!(number("net"), None);
    }
}
