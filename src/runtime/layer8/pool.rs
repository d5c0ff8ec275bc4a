//! Pools the token vectors of consecutive texts to one vector a text.

/// The kind of pooling; poolings over several layers combine these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PackedPooling {
    First,
    Mean,
    Max,
}

/// `tokens` is `[starts.last()][width]`, text `i` being the tokens from `starts[i]` to before `starts[i + 1]`; `out` is
/// `[texts][width]`. A text without tokens gives zeros.
///
/// # Panics
/// If the lengths do not belong together.
pub(crate) fn pool(kind: PackedPooling, tokens: &[f32], width: usize, starts: &[usize], out: &mut [f32]) {
    for (bounds, out) in starts.windows(2).zip(out.chunks_exact_mut(width)) {
        let text = &tokens[bounds[0] * width..bounds[1] * width];
        let Some((first, rest)) = text.split_at_checked(width).filter(|_| !text.is_empty()) else {
            out.fill(0.0);
            continue;
        };
        out.copy_from_slice(first);
        match kind {
            PackedPooling::First => {}
            PackedPooling::Mean => {
                for token in rest.chunks_exact(width) {
                    out.iter_mut().zip(token).for_each(|(sum, v)| *sum += v);
                }
                let share = 1.0 / (bounds[1] - bounds[0]) as f32;
                out.iter_mut().for_each(|v| *v *= share);
            }
            PackedPooling::Max => {
                for token in rest.chunks_exact(width) {
                    out.iter_mut().zip(token).for_each(|(most, v)| *most = most.max(*v));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_text_is_pooled_alone_and_an_empty_one_gives_zeros() {
        let tokens = [1.0, -2.0, 3.0, 0.0, 5.0, 8.0];
        let starts = [0, 2, 2, 3];
        for (kind, expected) in [
            (PackedPooling::First, [1.0, -2.0, 0.0, 0.0, 5.0, 8.0]),
            (PackedPooling::Mean, [2.0, -1.0, 0.0, 0.0, 5.0, 8.0]),
            (PackedPooling::Max, [3.0, 0.0, 0.0, 0.0, 5.0, 8.0]),
        ] {
            let mut out = [9.0; 6];
            pool(kind, &tokens, 2, &starts, &mut out);
            assert_eq!(out, expected, "{kind:?}");
        }
    }
}
