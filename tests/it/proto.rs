//! The committed protobuf code is what `proto/` says. `scripts/gen-proto.sh` writes it anew.

use std::path::{Path, PathBuf};

fn generate(out: &Path) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = ["types.proto", "manager.proto", "node.proto"];
    let set = protox::compile(files, [root.join("proto")]).unwrap();
    tonic_prost_build::configure()
        .out_dir(out)
        .bytes(".")
        .btree_map(".")
        .generate_default_stubs(false)
        .compile_fds(set)
        .unwrap();
}

fn generated(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> =
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn generated_code_is_fresh() {
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/wire/gen");
    let fresh = tempfile::tempdir().unwrap();
    generate(fresh.path());
    for file in generated(fresh.path()) {
        let name = file.file_name().unwrap();
        let target = committed.join(name);
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::copy(&file, &target).unwrap();
        }
        let committed = std::fs::read_to_string(&target).unwrap_or_default();
        let fresh = std::fs::read_to_string(&file).unwrap();
        assert!(committed == fresh, "{} is stale: run scripts/gen-proto.sh", target.display());
    }
}
