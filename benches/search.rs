//! How fast the indexes search, never without how well: recall@10 against the exact scan stands beside each time.
//!
//! Seeded vectors around a few hundred centres, of the length of MiniLM's embeddings, cosine, one search thread.
//! `DISTILFACE_BENCH_N` changes the number of vectors. An id carries the whole setting.

use std::{collections::HashSet, hint::black_box, sync::Arc, time::Instant};

use criterion::Criterion;
use distilface::{
    index::{IndexKind, IndexParams, SearchParams, Slot, VectorIndex, create},
    stop::Stop,
    vector::{Dim, Metric, Vector},
};

const DIM: u32 = 384;
const N_DEFAULT: usize = 20_000;
const CENTRES: usize = 300;
const QUERIES: usize = 200;
const K: usize = 10;
const EFS: [usize; 5] = [16, 32, 64, 96, 200];

fn main() {
    let n = std::env::var("DISTILFACE_BENCH_N").ok().and_then(|n| n.parse().ok()).unwrap_or(N_DEFAULT);
    let mut criterion = Criterion::default().configure_from_args();
    bench(&mut criterion, n);
    criterion.final_summary();
}

fn bench(criterion: &mut Criterion, n: usize) {
    let mut vectors = vectors(n + QUERIES);
    let queries = vectors.split_off(n);
    let size = if n.is_multiple_of(1000) { format!("{}k", n / 1000) } else { n.to_string() };

    let flat = build(IndexKind::Flat, &vectors, &size);
    let truth: Vec<HashSet<Slot>> = queries.iter().map(|q| search(&*flat, q, K)).collect();
    time(criterion, "search/flat", &format!("n={size}/dim={DIM}"), &*flat, &queries, K);

    let graph = build(IndexKind::HnswRs, &vectors, &size);
    let m = IndexParams::default().m;
    for ef in EFS {
        let id = format!("n={size}/dim={DIM}/m={m}/ef={ef}");
        let found: usize =
            queries.iter().zip(&truth).map(|(q, t)| search(&*graph, q, ef).intersection(t).count()).sum();
        say(&format!("search/hnsw_rs/{id}: recall@{K} {:.4}", found as f64 / (K * queries.len()) as f64));
        time(criterion, "search/hnsw_rs", &id, &*graph, &queries, ef);
    }
}

fn build(kind: IndexKind, vectors: &[Vector], size: &str) -> Arc<dyn VectorIndex> {
    let params = IndexParams { kind, ..IndexParams::default() };
    let dim = Dim::new(DIM).expect("a constant within bounds");
    let index =
        create(&params, dim, Metric::Cosine, vectors.len()).expect("default parameters are within bounds");
    let items: Vec<(Slot, &[f32])> =
        vectors.iter().enumerate().map(|(i, v)| (Slot(i as u32), v.as_slice())).collect();
    let pool = rayon::ThreadPoolBuilder::new().build().expect("threads can be had");
    let started = Instant::now();
    index.insert_on(&pool, &items, &Stop::default()).expect("ascending slots of one dimension");
    let threads = pool.current_num_threads();
    say(&format!("build/{kind:?}/n={size}/dim={DIM}: {:.2?} on {threads} threads", started.elapsed()));
    index
}

fn search(index: &dyn VectorIndex, query: &Vector, ef: usize) -> HashSet<Slot> {
    let params = SearchParams { k: K, ef, allow: None };
    let found = index.search(query.as_slice(), &params).expect("a query of the index's dimension");
    found.into_iter().map(|n| n.slot).collect()
}

fn time(
    criterion: &mut Criterion,
    group: &str,
    id: &str,
    index: &dyn VectorIndex,
    queries: &[Vector],
    ef: usize,
) {
    let params = SearchParams { k: K, ef, allow: None };
    let mut next = queries.iter().cycle();
    criterion.bench_function(&format!("{group}/{id}"), |bencher| {
        bencher.iter(|| {
            let query = next.next().expect("a cycle of queries does not end");
            black_box(index.search(black_box(query.as_slice()), &params))
        });
    });
}

/// Seeded (splitmix64).
fn vectors(n: usize) -> Vec<Vector> {
    let mut state = 42u64;
    let mut uniform = move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    let dim = Dim::new(DIM).expect("a constant within bounds");
    let centres: Vec<Vec<f32>> = (0..CENTRES).map(|_| (0..DIM).map(|_| uniform()).collect()).collect();
    (0..n)
        .map(|i| {
            let values = centres[i * 7 % CENTRES].iter().map(|c| c + uniform()).collect();
            Vector::new(values, dim, Metric::Cosine).expect("finite values of the dimension")
        })
        .collect()
}

#[expect(clippy::print_stdout, reason = "a bench reports to its caller's terminal")]
fn say(line: &str) {
    println!("{line}");
}
