//! Constants: which texts are values of a field's kind.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::fields::Kind;
use super::tree::Op;

/// What is wrong with a constant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ValueError {
    /// Falco refuses it: what it should be, and how to write it.
    Invalid(String, Option<String>),
    /// A port that Falco takes modulo 65,536.
    PortRange,
    /// A port that depends on the node's list of services.
    PortName,
}

fn invalid(message: impl Into<String>, help: &str) -> Result<(), ValueError> {
    Err(ValueError::Invalid(message.into(), (!help.is_empty()).then(|| help.to_owned())))
}

/// Whether a constant can be compared with a field of the kind.
pub(crate) fn check(text: &str, kind: Kind, op: Op) -> Result<(), ValueError> {
    match kind {
        Kind::Bytes if matches!(op, Op::Bcontains | Op::Bstartswith) => {
            if text.len().is_multiple_of(2) && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                Ok(())
            } else {
                invalid("is not an even number of hexadecimal digits", "such as `cafe01`")
            }
        }
        Kind::Text | Kind::Other | Kind::Bytes => Ok(()),
        Kind::Opaque => invalid("can't be compared with this field", "only `exists` works for it"),
        Kind::Number if is_number(text) => Ok(()),
        Kind::Number => invalid("is not a whole number in decimal digits", ""),
        Kind::Bool if matches!(text, "true" | "false") => Ok(()),
        Kind::Bool => invalid("is neither `true` nor `false`", ""),
        Kind::Port => port(text),
        Kind::Address if is_address(text) => Ok(()),
        Kind::Address if text.contains('/') => {
            invalid("is not an IP address", "networks are compared with fields such as `fd.snet`")
        }
        Kind::Address => invalid("is not an IP address", ""),
        Kind::Network => network(text),
    }
}

/// As the engine reads numbers: blanks, a sign, digits. What is too large wraps or saturates, and is accepted.
fn is_number(text: &str) -> bool {
    let text = text.trim_start_matches([' ', '\t', '\n', '\r', '\u{b}', '\u{c}']);
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_address(text: &str) -> bool {
    if text.contains('.') { text.parse::<Ipv4Addr>().is_ok() } else { text.parse::<Ipv6Addr>().is_ok() }
}

fn network(text: &str) -> Result<(), ValueError> {
    let Some((address, prefix)) = text.split_once('/') else {
        return invalid("is not an IP network", "write the length of its prefix too, such as `10.0.0.0/8`");
    };
    let limit = if address.contains('.') { 32 } else { 128 };
    if !is_address(address) {
        return invalid(format!("is not an IP network, for `{address}` is not an IP address"), "");
    }
    if !is_number(prefix) {
        return invalid("is not an IP network, for its prefix is not a number", "such as `10.0.0.0/8`");
    }
    match prefix.trim_start().parse::<u32>() {
        Ok(length) if length <= limit => Ok(()),
        _ => invalid(format!("is not an IP network, for its prefix is longer than {limit} bits"), ""),
    }
}

fn port(text: &str) -> Result<(), ValueError> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return match text.parse::<u64>() {
            Ok(0..=65535) => Ok(()),
            Ok(0..=0x7fff_ffff) => Err(ValueError::PortRange),
            // The engine gives up outright where the number is beyond its own.
            _ => invalid("is not a port", "ports go from 0 to 65535"),
        };
    }
    if SERVICES.contains(&text) {
        return Err(ValueError::PortName);
    }
    invalid("is not a port", "write its number")
}

/// Services that the list of about every installation has.
const SERVICES: &[&str] = &[
    "tcpmux",
    "echo",
    "discard",
    "systat",
    "daytime",
    "netstat",
    "qotd",
    "chargen",
    "ftp-data",
    "ftp",
    "ssh",
    "telnet",
    "smtp",
    "time",
    "whois",
    "tacacs",
    "domain",
    "bootps",
    "bootpc",
    "tftp",
    "gopher",
    "finger",
    "http",
    "kerberos",
    "pop3",
    "sunrpc",
    "auth",
    "nntp",
    "ntp",
    "netbios-ns",
    "netbios-dgm",
    "netbios-ssn",
    "imap2",
    "snmp",
    "snmp-trap",
    "bgp",
    "irc",
    "ldap",
    "https",
    "microsoft-ds",
    "submissions",
    "exec",
    "biff",
    "login",
    "who",
    "shell",
    "syslog",
    "printer",
    "talk",
    "route",
    "submission",
    "ldaps",
    "ftps-data",
    "ftps",
    "telnets",
    "imaps",
    "pop3s",
    "socks",
    "openvpn",
    "ms-sql-s",
    "ms-sql-m",
    "nfs",
    "mysql",
    "rdp",
    "postgresql",
    "amqp",
    "sip",
    "sip-tls",
    "xmpp-client",
    "xmpp-server",
    "x11",
    "git",
    "webmin",
    "http-alt",
    "mdns",
    "rsync",
    "docker",
    "redis",
    "puppet",
    "mqtt",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_are_read_as_the_engine_reads_them() {
        let ok = |text, kind| assert_eq!(check(text, kind, Op::Eq), Ok(()), "{text}");
        let bad = |text, kind| assert!(matches!(check(text, kind, Op::Eq), Err(ValueError::Invalid(..))), "{text}");
        for text in ["0", "007", "+1", "-5", "99999999999999999999999", " 5"] {
            ok(text, Kind::Number);
        }
        for text in ["", "-", "0x10", "1.5", "1e3", "5 ", "five"] {
            bad(text, Kind::Number);
        }
        for text in ["0.0.0.0/0", "fe80::/10", "10.1.2.3/32"] {
            ok(text, Kind::Network);
        }
        for text in ["10.0.0.1", "10.0.0.0/33", "10/8", "10.0.0.0/", "10.0.0.0/-1", "::/129", "10.0.0.0/255.0.0.0"] {
            bad(text, Kind::Network);
        }
        for text in ["10.0.0.0/8", "::ffff:10.0.0.1", "[::1]", "167772161", "foo", ""] {
            bad(text, Kind::Address);
        }
        ok("80", Kind::Port);
        assert_eq!(check("http", Kind::Port, Op::Eq), Err(ValueError::PortName));
        assert_eq!(check("65536", Kind::Port, Op::Eq), Err(ValueError::PortRange));
        bad("18446744073709551616", Kind::Port);
        bad("nosuchservice", Kind::Port);
        assert_eq!(check("cafe", Kind::Bytes, Op::Bcontains), Ok(()));
        assert!(check("caf", Kind::Bytes, Op::Bcontains).is_err());
    }
}
