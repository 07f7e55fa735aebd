use super::*;
use crate::Timestamp;
use crate::filesystem::{EntryInfo, FileType, StatResponse, WatchDirResponse, watch_dir_response};
use crate::process::process_event::{DataEvent, EndEvent, Event, KeepAlive, data_event};
use crate::process::{
    ProcessEvent, SendInputRequest, SendSignalRequest, StartRequest, StartResponse, process_input,
};

fn json<M: Message>(message: &M) -> String {
    String::from_utf8(Codec::Json.encode(message).unwrap()).unwrap()
}

fn event(event: Event) -> StartResponse {
    StartResponse {
        event: Some(ProcessEvent { event: Some(event) }),
    }
}

#[test]
fn success_leaves_out_the_zero_exit_code() {
    let end = event(Event::End(EndEvent {
        exit_code: 0,
        exited: true,
        status: "exit status 0".into(),
        error: None,
    }));
    assert_eq!(
        json(&end),
        r#"{"event":{"end":{"exited":true,"status":"exit status 0"}}}"#
    );
}

#[test]
fn empty_messages_are_objects_and_bytes_are_padded_base64() {
    assert_eq!(
        json(&event(Event::Keepalive(KeepAlive {}))),
        r#"{"event":{"keepalive":{}}}"#
    );
    let data = event(Event::Data(DataEvent {
        output: Some(data_event::Output::Stdout(vec![b'h', 0xff].into())),
    }));
    assert_eq!(json(&data), r#"{"event":{"data":{"stdout":"aP8="}}}"#);
    let start = WatchDirResponse {
        event: Some(watch_dir_response::Event::Start(
            watch_dir_response::StartEvent {},
        )),
    };
    assert_eq!(json(&start), r#"{"start":{}}"#);
}

#[test]
fn entries_use_camel_case_strings_for_sizes_and_names_for_kinds() {
    let stat = StatResponse {
        entry: Some(EntryInfo {
            name: "a".into(),
            r#type: FileType::File.into(),
            size: 13,
            modified_time: Some(Timestamp {
                seconds: 1_700_000_000,
                nanos: 120_000_000,
            }),
            is_symlink: true,
            ..EntryInfo::default()
        }),
    };
    assert_eq!(
        json(&stat),
        concat!(
            r#"{"entry":{"name":"a","type":"FILE_TYPE_FILE","size":"13","#,
            r#""modifiedTime":"2023-11-14T22:13:20.120Z","isSymlink":true}}"#
        )
    );
}

#[test]
fn input_names_in_both_cases_and_unknown_fields_are_accepted() {
    let watch: crate::filesystem::WatchDirRequest = Codec::Json
        .decode(br#"{"path":"/a","include_entry":true,"allowNetworkMounts":true,"later":[1]}"#)
        .unwrap();
    assert!(watch.include_entry && watch.allow_network_mounts);
}

#[test]
fn bytes_are_accepted_url_safe_and_unpadded() {
    let request: SendInputRequest = Codec::Json
        .decode(br#"{"process":{"pid":1},"input":{"stdin":"_-8"}}"#)
        .unwrap();
    let input = request.input.unwrap().input.unwrap();
    assert_eq!(input, process_input::Input::Stdin(vec![0xff, 0xef].into()));
}

#[test]
fn enums_are_accepted_by_name_and_number() {
    for body in [r#"{"signal":"SIGNAL_SIGKILL"}"#, r#"{"signal":9}"#] {
        let request: SendSignalRequest = Codec::Json.decode(body.as_bytes()).unwrap();
        assert_eq!(request.signal, 9);
    }
    let unknown: SendSignalRequest = Codec::Json.decode(br#"{"signal":2}"#).unwrap();
    assert_eq!(unknown.signal, 0);
}

#[test]
fn a_start_survives_both_codecs() {
    let body = br#"{"process":{"cmd":"/bin/bash","args":["-l"],"envs":{"A":"1"},"cwd":"/tmp"},
        "stdin":false,"tag":"t","pty":{"size":{"cols":80,"rows":24}}}"#;
    let start: StartRequest = Codec::Json.decode(body).unwrap();
    assert_eq!(start.stdin, Some(false));
    for codec in [Codec::Json, Codec::Proto] {
        let bytes = codec.encode(&start).unwrap();
        assert_eq!(codec.decode::<StartRequest>(&bytes).unwrap(), start);
    }
}

#[test]
fn nonsense_is_an_invalid_argument() {
    for codec in [Codec::Json, Codec::Proto] {
        let error = codec.decode::<StartRequest>(b"\xff{").unwrap_err();
        assert_eq!(error.code, Code::InvalidArgument);
    }
}
