//! Connect frames: the first byte cuts the stream into pieces; however it is cut, the same
//! frames come out, and what they hold decodes or is refused.

#![no_main]

use warren_connect::{Codec, EnvelopeDecoder, process::StartRequest};

const LIMIT: usize = 4096;

fn frames(data: &[u8], piece: usize) -> (Vec<Vec<u8>>, bool) {
    let mut decoder = EnvelopeDecoder::new(LIMIT);
    let mut found = Vec::new();
    for bytes in data.chunks(piece) {
        decoder.push(bytes);
        loop {
            match decoder.next_envelope() {
                Ok(Some(envelope)) => {
                    assert!(envelope.payload.len() <= LIMIT);
                    found.push(envelope.payload.to_vec());
                }
                Ok(None) => break,
                Err(_) => return (found, true),
            }
        }
    }
    (found, decoder.finish().is_err())
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((first, rest)) = data.split_first() else {
        return;
    };
    let whole = frames(rest, rest.len().max(1));
    assert_eq!(whole, frames(rest, usize::from(*first).max(1)));
    for payload in &whole.0 {
        for codec in [Codec::Json, Codec::Proto] {
            let _ = codec.decode::<StartRequest>(payload);
        }
    }
});
