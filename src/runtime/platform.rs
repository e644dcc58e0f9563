//! Whether this node can run an image that was made for another platform.
//!
//! The engine makes such a container all the same and warns; where the kernel then cannot run the
//! program, the container ends with `exec format error` in its output and a bare exit code, again and
//! again. So a warning is followed up, and only then: an image of the node's own platform costs no
//! question more.

use std::path::Path;

use crate::domain::node::Platform;
use crate::domain::placement::normal_arch;

/// Where the kernel lists programs that run other architectures' programs (such as QEMU).
const HANDLERS: &str = "/proc/sys/fs/binfmt_misc";
/// Magic bytes of an ELF file, in hex as the kernel lists them.
const ELF: &str = "7f454c46";

/// Whether the engine doubts that the container it made can run (Docker 20.10 and later).
pub(super) fn is_doubted(warnings: &[String]) -> bool {
    warnings.iter().any(|it| it.contains("does not match the detected host platform"))
}

/// What the kernel says of each handler; nothing where it has none.
pub(super) fn handlers() -> Vec<String> {
    let listed = std::fs::read_dir(Path::new(HANDLERS));
    let files = listed.into_iter().flatten().flatten().map(|entry| entry.path());
    files.filter_map(|path| std::fs::read_to_string(path).ok()).collect()
}

/// Why an image of one platform cannot run on a node of another, if it cannot.
pub(super) fn problem(
    image: &str,
    of: &Platform,
    on: &Platform,
    handlers: &[String],
) -> Option<String> {
    let (has, wants) = (normal_arch(&on.architecture), normal_arch(&of.architecture));
    let same_os = of.os.is_empty() || of.os.eq_ignore_ascii_case(&on.os);
    let runs = wants.is_empty()
        || has.eq_ignore_ascii_case(wants)
        // Processors that run the older set as well.
        || matches!((has, wants), ("amd64", "386") | ("arm64", "arm"))
        || handlers.iter().any(|handler| serves(handler, wants));
    if same_os && runs {
        return None;
    }
    Some(format!(
        "image {image} is for {}/{wants} and this node is {}/{has}: use an image for this platform, \
         or keep the service to nodes that have the other one (--constraint \
         node.platform.arch=={wants})",
        of.os, on.os
    ))
}

/// Whether a handler is for programs of an architecture, by the machine in its ELF magic.
fn serves(handler: &str, arch: &str) -> bool {
    // e_machine, at bytes 18 and 19 in the byte order of the architecture.
    let machine = match arch {
        "386" => "0300",
        "amd64" => "3e00",
        "arm" => "2800",
        "arm64" => "b700",
        "loong64" => "0201",
        "ppc64le" => "1500",
        "riscv64" => "f300",
        "s390x" => "0016",
        _ => return false,
    };
    let mut lines = handler.lines();
    lines.next() == Some("enabled")
        && lines.filter_map(|line| line.strip_prefix("magic ")).any(|magic| {
            magic.starts_with(ELF) && magic.get(36..40).is_some_and(|bytes| bytes == machine)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        let (os, architecture) = text.split_once('/').unwrap();
        Platform { architecture: architecture.to_owned(), os: os.to_owned() }
    }

    fn told(of: &str, on: &str, handlers: &[String]) -> Option<String> {
        problem("app:1", &platform(of), &platform(on), handlers)
    }

    /// As Debian's qemu-user-static registers it.
    const AARCH64: &str = "enabled\ninterpreter /usr/bin/qemu-aarch64-static\nflags: OCF\n\
        offset 0\nmagic 7f454c460201010000000000000000000200b700\n\
        mask ffffffffffffff00fffffffffffffffffeffffff\n";

    #[test]
    fn what_the_node_cannot_run_is_told_with_a_way_out() {
        let said = told("linux/arm64", "linux/x86_64", &[]).unwrap();
        for word in ["app:1", "linux/arm64", "linux/amd64", "node.platform.arch==arm64"] {
            assert!(said.contains(word), "{word}: {said}");
        }
        assert!(told("windows/amd64", "linux/x86_64", &[]).is_some());
        assert!(told("linux/amd64", "linux/386", &[]).is_some());
    }

    #[test]
    fn what_it_can_run_is_left_alone() {
        for (of, on) in [
            ("linux/amd64", "linux/x86_64"),
            ("linux/386", "linux/x86_64"),
            ("linux/arm", "linux/aarch64"),
            ("/", "linux/x86_64"),
        ] {
            assert_eq!(told(of, on, &[]), None, "{of} on {on}");
        }
    }

    #[test]
    fn an_emulator_runs_its_own_architecture_while_it_is_enabled() {
        let handlers = [AARCH64.to_owned()];
        assert_eq!(told("linux/arm64", "linux/x86_64", &handlers), None);
        assert!(told("linux/s390x", "linux/x86_64", &handlers).is_some());
        let off = [AARCH64.replacen("enabled", "disabled", 1)];
        assert!(told("linux/arm64", "linux/x86_64", &off).is_some());
    }

    #[test]
    fn only_the_engines_doubt_counts() {
        let doubt = "The requested image's platform (linux/arm64) does not match the detected host \
                     platform (linux/amd64) and no specific platform was requested";
        assert!(is_doubted(&[doubt.to_owned()]));
        assert!(!is_doubted(&["Your kernel does not support swap limit capabilities".to_owned()]));
    }
}
