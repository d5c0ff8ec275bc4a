//! Axes of a node's outputs from those of its inputs, as far as gradients need them: ranks, fixed lengths, and which
//! axes are broadcast. What is not known here is only an error where a gradient asks for it.

use super::graph::{Attribute, Axis, Graph, Value};

/// Axes of each of the `outputs` of a node, where they follow from its inputs.
pub(super) fn infer(
    graph: &Graph,
    op: &str,
    inputs: &[&Value],
    attributes: &[(&str, Attribute)],
    outputs: usize,
) -> Vec<Option<Vec<Axis>>> {
    let axes = |n: usize| inputs.get(n).and_then(|value| graph.axes(value));
    let integers = |n: usize| inputs.get(n).and_then(|value| graph.integers_of(value));
    let integer = |name: &str| {
        attributes.iter().find_map(|(n, a)| match a {
            Attribute::Int(i) if *n == name => Some(*i),
            _ => None,
        })
    };
    let first = || axes(0).map(<[Axis]>::to_vec);
    let one = match op {
        "Add" | "Sub" | "Mul" | "Div" | "Max" | "Equal" | "Greater" => broadcast(axes(0), axes(1)),
        "Where" => broadcast(broadcast(axes(0), axes(1)).as_deref(), axes(2)),
        "Softmax" | "LogSoftmax" | "Gelu" | "Tanh" | "Erf" | "Exp" | "Neg" | "Cast" | "Identity" => first(),
        "LayerNormalization" => {
            let whole = first();
            let rows = whole.clone().map(|mut axes| {
                if let Some(last) = axes.last_mut() {
                    *last = Axis::Fixed(1);
                }
                axes
            });
            let mut all = vec![whole];
            all.resize(outputs, rows);
            return all;
        }
        // With lengths of its own the caller knows the shapes.
        "Split" if inputs.len() == 1 => {
            let parts = first().zip(integer("axis")).map(|(mut axes, axis)| {
                let axis = place(axis, axes.len());
                axes[axis] = match axes[axis] {
                    Axis::Fixed(length) => Axis::Fixed(length / outputs),
                    _ => Axis::Unknown,
                };
                axes
            });
            return vec![parts; outputs];
        }
        "Gemm" => axes(0).zip(axes(1)).map(|(a, b)| {
            let rows = if integer("transA") == Some(1) { a[1] } else { a[0] };
            let columns = if integer("transB") == Some(1) { b[0] } else { b[1] };
            vec![rows, columns]
        }),
        "MatMul" => axes(0).zip(axes(1)).and_then(|(a, b)| {
            let mut shape = a.to_vec();
            *shape.last_mut()? = *b.last()?;
            Some(shape)
        }),
        "Reshape" => integers(1).map(|shape| {
            let keep = |(n, &length): (usize, &i64)| match length {
                0 => axes(0).and_then(|axes| axes.get(n).copied()).unwrap_or(Axis::Unknown),
                length => usize::try_from(length).map_or(Axis::Unknown, Axis::Fixed),
            };
            shape.iter().enumerate().map(keep).collect()
        }),
        "Transpose" => first().and_then(|axes| {
            let order = attributes.iter().find_map(|(n, a)| match a {
                Attribute::Ints(order) if *n == "perm" => Some(order),
                _ => None,
            })?;
            Some(order.iter().map(|&n| axes[n as usize]).collect())
        }),
        "ReduceSum" | "ReduceMax" | "ReduceMean" | "ReduceL2" => {
            first().zip(integers(1)).map(|(axes, over)| {
                let rank = axes.len();
                let over: Vec<usize> = over.iter().map(|&n| place(n, rank)).collect();
                let keep = integer("keepdims") == Some(1);
                let kept = |(n, axis)| match over.contains(&n) {
                    true => keep.then_some(Axis::Fixed(1)),
                    false => Some(axis),
                };
                axes.into_iter().enumerate().filter_map(kept).collect()
            })
        }
        "Gather" => axes(0).zip(axes(1)).map(|(table, indices)| {
            let axis = place(integer("axis").unwrap_or(0), table.len());
            [&table[..axis], indices, &table[axis + 1..]].concat()
        }),
        "Slice" => first().map(|mut axes| {
            let over = integers(3).and_then(|over| over.first()).map(|&n| place(n, axes.len()));
            let bounds = integers(1).zip(integers(2)).map(|(from, to)| to[0] - from[0]);
            match over {
                Some(n) => {
                    axes[n] = bounds.and_then(|n| usize::try_from(n).ok()).map_or(Axis::Unknown, Axis::Fixed);
                }
                None => axes.fill(Axis::Unknown),
            }
            axes
        }),
        "Concat" => first().zip(integer("axis")).map(|(mut shape, axis)| {
            let axis = place(axis, shape.len());
            let lengths = (0..inputs.len()).map(|n| match axes(n)?.get(axis)? {
                Axis::Fixed(length) => Some(*length),
                _ => None,
            });
            shape[axis] = lengths.sum::<Option<usize>>().map_or(Axis::Unknown, Axis::Fixed);
            shape
        }),
        "Unsqueeze" => first().zip(integers(1)).map(|(axes, at)| {
            let rank = axes.len() + at.len();
            let at: Vec<usize> = at.iter().map(|&n| place(n, rank)).collect();
            let mut axes = axes.into_iter();
            (0..rank)
                .map(|n| if at.contains(&n) { Axis::Fixed(1) } else { axes.next().unwrap_or(Axis::Unknown) })
                .collect()
        }),
        "Shape" => axes(0).map(|axes| vec![Axis::Fixed(axes.len())]),
        _ => None,
    };
    let mut all = vec![one];
    all.resize(outputs, None);
    all
}

/// An axis counted from the front.
pub(super) fn place(axis: i64, rank: usize) -> usize {
    usize::try_from(axis).unwrap_or_else(|_| rank - axis.unsigned_abs() as usize)
}

/// Axes of an elementwise result: ranks filled with ones in front, and an axis of length 1 gives way.
fn broadcast(a: Option<&[Axis]>, b: Option<&[Axis]>) -> Option<Vec<Axis>> {
    let (a, b) = (a?, b?);
    let rank = a.len().max(b.len());
    let at = |axes: &[Axis], n: usize| (n + axes.len()).checked_sub(rank).map(|n| axes[n]);
    let one = |n: usize| match (at(a, n), at(b, n)) {
        (Some(Axis::Fixed(1)) | None, Some(other)) | (Some(other), Some(Axis::Fixed(1)) | None) => other,
        (Some(Axis::Unknown), Some(known)) | (Some(known), _) => known,
        (None, None) => Axis::Unknown,
    };
    Some((0..rank).map(one).collect())
}

#[cfg(test)]
mod tests {
    use super::super::graph::DataType;
    use super::*;

    #[test]
    fn shapes_follow_the_operations() {
        let mut g = Graph::new("test");
        let x = g.input("x", DataType::Float, &[Axis::Named("n"), Axis::Fixed(8)]);
        let w = g.input("w", DataType::Float, &[Axis::Fixed(6), Axis::Fixed(8)]);
        let y = g.linear("y", &x, &w, None);
        assert_eq!(g.axes(&y).unwrap(), [Axis::Named("n"), Axis::Fixed(6)]);
        let z = g.reshape("z", &y, &[0, 2, 3]);
        assert_eq!(g.axes(&z).unwrap(), [Axis::Named("n"), Axis::Fixed(2), Axis::Fixed(3)]);
        let t = g.transpose("t", &z, &[1, 0, 2]);
        let s = g.reduce_sum("s", &t, &[-1], false);
        assert_eq!(g.axes(&s).unwrap(), [Axis::Fixed(2), Axis::Named("n")]);
        let k = g.reduce_max("k", &t, &[0], true);
        let b = g.add("b", &t, &k);
        assert_eq!(g.axes(&b), g.axes(&t));
        let c = g.concat("c", &[&y, &x], 1);
        assert_eq!(g.axes(&c).unwrap(), [Axis::Named("n"), Axis::Fixed(14)]);
        let halves = g.split("halves", &c, 1, 2);
        assert_eq!(g.axes(&halves[0]).unwrap(), [Axis::Named("n"), Axis::Fixed(7)]);
        let cut = g.slice("cut", &c, 1, 0, 5);
        assert_eq!(g.axes(&cut).unwrap(), [Axis::Named("n"), Axis::Fixed(5)]);
        let u = g.unsqueeze("u", &cut, &[-1]);
        assert_eq!(g.axes(&u).unwrap(), [Axis::Named("n"), Axis::Fixed(5), Axis::Fixed(1)]);
    }
}
