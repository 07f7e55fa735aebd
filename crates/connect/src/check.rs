use crate::{Codec, EnvelopeDecoder, process::StartRequest};

const LIMIT: usize = 4096;

fn frames(data: &[u8], piece: usize) -> (Vec<Vec<u8>>, bool) {
    let mut decoder = EnvelopeDecoder::new(LIMIT);
    let mut found = Vec::new();
    for bytes in data.chunks(piece) {
        decoder.push(bytes);
        loop {
            match decoder.next_envelope() {
                Ok(Some(envelope)) => {
                    assert!(envelope.payload.len() <= LIMIT, "the limit holds");
                    found.push(envelope.payload.to_vec());
                }
                Ok(None) => break,
                Err(_) => return (found, true),
            }
        }
    }
    (found, decoder.finish().is_err())
}

/// Reads hostile bytes as a stream of frames, which the first byte cuts into pieces: however
/// it is cut, the same frames come out, and what they hold decodes or is refused. The body of
/// the fuzz target and of the test over its seeds.
///
/// # Panics
/// When an invariant is broken.
pub fn check_frames_input(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else {
        return;
    };
    let whole = frames(rest, rest.len().max(1));
    assert_eq!(whole, frames(rest, usize::from(*first).max(1)));
    for payload in &whole.0 {
        for codec in [Codec::Json, Codec::Proto] {
            // Refusing is an answer.
            let _refused = codec.decode::<StartRequest>(payload).is_err();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    #[test]
    fn the_seeds_of_the_fuzz_target_hold() {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/connect_frames");
        let mut count = 0;
        for entry in std::fs::read_dir(seeds).unwrap() {
            super::check_frames_input(&std::fs::read(entry.unwrap().path()).unwrap());
            count += 1;
        }
        assert!(count > 0);
    }
}
