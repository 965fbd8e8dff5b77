use std::os::unix::net::UnixListener;
use std::thread;

use proptest::prelude::*;

use super::wire;
use super::*;

fn start(name: &str) -> Vec<u8> {
    [&[1, u8::try_from(name.len()).unwrap()], name.as_bytes()].concat()
}

fn pair(key: &str, value: &str) -> Vec<u8> {
    let length = u16::try_from(value.len()).unwrap().to_be_bytes();
    [&[3, u8::try_from(key.len()).unwrap()], key.as_bytes(), &length, value.as_bytes()].concat()
}

/// A message as charon's `list-sas` gives it.
fn message() -> Vec<u8> {
    [
        start("Tunnel1"),
        pair("uniqueid", "1"),
        pair("version", "2"),
        pair("state", "ESTABLISHED"),
        pair("local-host", "192.168.12.49"),
        pair("remote-host", "203.0.113.10"),
        pair("nat-local", "yes"),
        pair("established", "3600"),
        start("child-sas"),
        start("Tunnel1-7"),
        pair("name", "Tunnel1"),
        pair("state", "INSTALLED"),
        vec![4, 8],
        b"local-ts".to_vec(),
        vec![5, 0, 9],
        b"0.0.0.0/0".to_vec(),
        vec![6],
        vec![2, 2, 2],
    ]
    .concat()
}

fn framed(packet: &[u8]) -> Vec<u8> {
    [&u32::try_from(packet.len()).unwrap().to_be_bytes(), packet].concat()
}

fn event(body: &[u8]) -> Vec<u8> {
    framed(&[&[7, 7], b"list-sa".as_slice(), body].concat())
}

/// Asks a daemon that answers with these bytes, whatever it is asked.
fn asked(answer: Vec<u8>) -> Result<Vec<IkeAssociation>, ViciError> {
    let (near, mut far) = UnixStream::pair().unwrap();
    far.write_all(&answer).unwrap();
    drop(far.shutdown(std::net::Shutdown::Write));
    let mut session = Session { stream: near, deadline: Instant::now() + PATIENCE };
    let path = PathBuf::from("test");
    match session.list() {
        Ok(Some(found)) => Ok(found),
        Ok(None) => Err(ViciError::Unknown { path }),
        Err(source) => Err(ViciError::Broken { path, source }),
    }
}

#[test]
fn an_association_is_read_with_its_children() {
    let answer = [framed(&[5]), event(&message()), framed(&[1])].concat();
    let found = asked(answer).unwrap();
    let expected = IkeAssociation {
        name: "Tunnel1".into(),
        local: "192.168.12.49".parse().ok(),
        remote: "203.0.113.10".parse().ok(),
        state: "ESTABLISHED".into(),
        version: Some(2),
        established: Some(3600),
        behind_nat: true,
        children: vec![("Tunnel1".into(), "INSTALLED".into())],
    };
    assert_eq!(found, [expected]);
    assert!(found[0].is_up());
}

#[test]
fn the_requests_are_those_of_the_protocol() {
    assert_eq!(wire::register("list-sa"), b"\x03\x07list-sa");
    assert_eq!(wire::request("list-sas"), b"\x00\x08list-sas");
}

#[test]
fn what_is_no_vici_is_told() {
    assert!(matches!(asked(framed(&[6])), Err(ViciError::Unknown { .. })));
    assert!(matches!(asked(Vec::new()), Err(ViciError::Broken { .. })));
    assert!(matches!(asked(u32::MAX.to_be_bytes().to_vec()), Err(ViciError::Broken { .. })));
    assert!(matches!(asked([framed(&[5]), event(&[1, 9])].concat()), Err(ViciError::Broken { .. })));
    assert!(matches!(asked([framed(&[5]), event(&message())].concat()), Err(ViciError::Broken { .. })));
}

#[test]
fn a_socket_is_connected_to() {
    let path = std::env::temp_dir().join(format!("vpnfix-vici-{}", std::process::id()));
    assert!(matches!(associations(&path), Err(ViciError::Connect { .. })));
    let listener = UnixListener::bind(&path).unwrap();
    let daemon = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut asked = [0; 13];
        stream.read_exact(&mut asked).unwrap();
        stream.write_all(&framed(&[5])).unwrap();
        stream.read_exact(&mut [0; 14]).unwrap();
        stream.write_all(&[event(&message()), event(&message()), framed(&[1])].concat()).unwrap();
        asked
    });
    let found = associations(&path);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(found.unwrap().len(), 2);
    assert_eq!(&daemon.join().unwrap(), b"\0\0\0\x09\x03\x07list-sa");
}

#[test]
fn cut_messages_are_errors() {
    let whole = message();
    for length in 1..whole.len() {
        assert!(wire::associations(&whole[..length]).is_err(), "{length}");
    }
    assert!(wire::associations(&[start("x"), start("x")].concat().repeat(9)).is_err());
}

proptest! {
    #[test]
    fn nothing_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _any = (wire::packet(&bytes), wire::associations(&bytes));
    }
}
