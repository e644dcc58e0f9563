//! What answers of the engine mean.

use super::*;

fn answered(status: u16, message: &str, act: Act) -> Error {
    classify_answer(status, message, act)
}

#[test]
fn answers_are_told_apart() {
    let port = "driver failed programming external connectivity on endpoint web.1: Error starting \
                userland proxy: listen tcp4 0.0.0.0:80: bind: address already in use";
    assert!(matches!(answered(500, port, Act::Start), Error::PortInUse(_)));
    let port = "Bind for 0.0.0.0:8080 failed: port is already allocated";
    assert!(matches!(answered(500, port, Act::Start), Error::PortInUse(_)));
    let addr = "Address already in use";
    assert!(matches!(answered(403, addr, Act::Start), Error::Transient(_)));
    let image = "No such image: nope:latest";
    assert!(matches!(answered(404, image, Act::Create), Error::NoImage(_)));
    assert_eq!(answered(404, "No such container: x", Act::Start), Error::Missing);
    assert_eq!(answered(404, "network x not found", Act::Network), Error::Missing);
    assert!(matches!(answered(404, "network x not found", Act::Start), Error::Transient(_)));
    let exec = "OCI runtime create failed: exec: \"nope\": executable file not found in $PATH";
    assert!(matches!(answered(400, exec, Act::Start), Error::Permanent(_)));
    assert!(matches!(answered(500, "strange", Act::Ask), Error::Transient(_)));
}

#[tokio::test]
async fn an_engine_that_is_not_there_is_told_by_its_socket_and_the_systems_words() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("docker.sock");
    // A socket file without a listener, as an engine that was killed leaves it.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let settings = Settings { socket: socket.clone(), node: NodeId::default() };
    let runtime = start(settings, Env::system(), &Scope::root("test"));
    let error = runtime.describe().await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::Unreachable(_)), "{error:?}");
    assert!(text.contains(&socket.display().to_string()), "{text}");
    assert!(text.contains("Connection refused"), "{text}");
}
