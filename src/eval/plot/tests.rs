use proptest::prelude::*;

use super::*;

fn chart(points: &[(f64, f64)]) -> LineChart {
    LineChart {
        title: "Loss".into(),
        x_label: "step".into(),
        y_label: "loss".into(),
        log_x: false,
        series: vec![Series { name: "seed 1".into(), points: points.to_vec() }],
    }
}

fn map() -> HeatMap {
    HeatMap {
        title: "STS-B dev".into(),
        x_label: "temperature".into(),
        y_label: "pooling".into(),
        columns: vec!["0.01".into(), "0.05".into(), "0.1".into()],
        rows: vec!["mean".into(), "last4_concat_mean".into()],
        values: vec![vec![70.123, 76.5, 74.0], vec![71.0, f64::NAN]],
    }
}

fn texts(svg: &str) -> Vec<&str> {
    svg.split("<text")
        .skip(1)
        .map(|t| t[t.find('>').unwrap() + 1..t.find("</text").unwrap()].trim())
        .collect()
}

/// Where each text begins and ends by rule of thumb, and whether that is inside the picture.
fn texts_fit(svg: &str) -> Result<(), String> {
    let attribute = |tag: &str, name: &str| -> String {
        tag.split(&format!(" {name}=\"")).nth(1).unwrap_or("").split('"').next().unwrap().to_owned()
    };
    let figure = |tag: &str, name: &str| attribute(tag, name).parse::<f64>().unwrap();
    let (across, down) = (figure(svg, "width"), figure(svg, "height"));
    for tag in svg.split("<text").skip(1) {
        let (x, y) = (figure(tag, "x"), figure(tag, "y"));
        let content = tag[tag.find('>').unwrap() + 1..tag.find("</text").unwrap()].trim();
        let chars = content.replace("&lt;", "<").replace("&amp;", "&").chars().count() as f64;
        let long = chars * figure(tag, "font-size") * 0.58;
        let before = match attribute(tag, "text-anchor").as_str() {
            "start" => 0.0,
            "middle" => 0.5,
            _ => 1.0,
        };
        let turned = tag.contains("rotate(270");
        let (at, end) = if turned {
            (y - long * (1.0 - before), y + long * before)
        } else {
            (x - long * before, x + long * (1.0 - before))
        };
        let room = if turned { down } else { across };
        if at < 0.0 || end > room {
            return Err(format!("{content:?} from {at} to {end} of {room}"));
        }
    }
    Ok(())
}

#[test]
fn equal_charts_give_equal_bytes() {
    let made = chart(&[(0.0, 4.8), (100.0, 0.3), (200.0, 0.1)]);
    assert_eq!(made.svg(), made.svg());
    assert_eq!(map().svg(), map().svg());
}

#[test]
fn a_chart_shows_title_axes_legend_and_points() {
    let svg = chart(&[(0.0, 4.8), (100.0, 0.3), (200.0, 0.1)]).svg();
    let texts = texts(&svg);
    for expected in ["Loss", "step", "loss", "seed 1", "0", "100", "200", "4"] {
        assert!(texts.contains(&expected), "{expected} is not among {texts:?}");
    }
    // Three points and the legend's.
    assert_eq!(svg.matches("<circle").count(), 4);
    texts_fit(&svg).unwrap();
}

#[test]
fn points_that_are_not_finite_are_left_out() {
    let with = chart(&[(0.0, 1.0), (f64::NAN, 2.0), (1.0, f64::INFINITY), (2.0, 3.0)]);
    assert_eq!(with.svg(), chart(&[(0.0, 1.0), (2.0, 3.0)]).svg());
    let log = |points: &[(f64, f64)]| LineChart { log_x: true, ..chart(points) }.svg();
    assert_eq!(log(&[(0.0, 1.0), (-1.0, 1.0), (1.0, 1.0), (10.0, 2.0)]), log(&[(1.0, 1.0), (10.0, 2.0)]));
    assert!(texts(&chart(&[(f64::NAN, 1.0)]).svg()).contains(&"no points"));
    assert!(texts(&chart(&[]).svg()).contains(&"no points"));
}

#[test]
fn a_single_point_and_a_flat_line_have_axes() {
    for points in [&[(5.0, 5.0)][..], &[(0.0, 0.0)], &[(1.0, 2.0), (3.0, 2.0)]] {
        let svg = chart(points).svg();
        assert!(texts(&svg).len() > 5, "{:?}", texts(&svg));
        assert!(!svg.contains("NaN"), "{svg}");
    }
}

#[test]
fn a_logarithmic_axis_names_the_settings_that_were_tried() {
    let batch = LineChart { log_x: true, ..chart(&[(32.0, 1.0), (64.0, 2.0), (128.0, 3.0), (1024.0, 1.0)]) };
    let svg = batch.svg();
    for expected in ["32", "64", "128", "1024"] {
        assert!(texts(&svg).contains(&expected), "{expected}: {:?}", texts(&svg));
    }
    let many: Vec<(f64, f64)> = (1..=1000).map(|i| (f64::from(i), 1.0)).collect();
    let svg = LineChart { log_x: true, ..chart(&many) }.svg();
    for expected in ["1", "10", "100", "1000"] {
        assert!(texts(&svg).contains(&expected), "{expected}: {:?}", texts(&svg));
    }
}

#[test]
fn a_heat_map_shows_every_value_and_frames_the_best() {
    let svg = map().svg();
    let texts = texts(&svg);
    for expected in
        ["70.1", "76.5", "74.0", "71.0", "–", "0.05", "last4_concat_mean", "pooling", "temperature"]
    {
        assert!(texts.contains(&expected), "{expected} is not among {texts:?}");
    }
    // A missing value, and one that was never given.
    assert_eq!(texts.iter().filter(|t| **t == "–").count(), 2);
    assert_eq!(svg.matches("stroke=\"#282828\"").count(), 1);
    texts_fit(&svg).unwrap();
    let empty = HeatMap { values: Vec::new(), ..map() };
    assert!(!empty.svg().contains("NaN"));
}

#[test]
fn texts_are_escaped_and_cut() {
    let long = "a<b>&\"c\" \u{1} ".repeat(30);
    let svg = LineChart {
        title: long.clone(),
        x_label: long.clone(),
        y_label: long.clone(),
        log_x: false,
        series: vec![Series { name: long.clone(), points: vec![(0.0, 1.0), (1.0, 2.0)] }],
    }
    .svg();
    assert!(!svg.contains("a<b") && !svg.contains('\u{1}') && svg.contains("a&lt;b&gt;&amp;"));
    let map = HeatMap { title: long.clone(), columns: vec![long.clone()], rows: vec![long], ..map() }.svg();
    assert!(!map.contains("a<b") && !map.contains('\u{1}'));
}

#[test]
fn ticks_are_round_numbers() {
    assert_eq!(ticks((0.0, 200.0)), [0.0, 50.0, 100.0, 150.0, 200.0]);
    let texts = |range| {
        let all = ticks(range);
        all.iter().map(|t| number(*t, step(&all))).collect::<Vec<_>>()
    };
    assert_eq!(texts((0.61, 0.79)), ["0.62", "0.64", "0.66", "0.68", "0.70", "0.72", "0.74", "0.76", "0.78"]);
    assert_eq!(texts((-1.0, 1.0)), ["-1.0", "-0.5", "0.0", "0.5", "1.0"]);
    assert_eq!(texts((0.0, 3e-5)), ["0", "5e-6", "1e-5", "1.5e-5", "2e-5", "2.5e-5", "3e-5"]);
    assert_eq!(texts((0.0, 4e7)), ["0", "5e6", "1e7", "1.5e7", "2e7", "2.5e7", "3e7", "3.5e7", "4e7"]);
}

proptest! {
    #[test]
    fn ticks_lie_in_their_range_in_order(a in -1e6f64..1e6, range in 1e-3f64..1e6) {
        let all = ticks((a, a + range));
        prop_assert!((2..=TICKS_MAX + 1).contains(&all.len()), "{:?}", all);
        prop_assert!(all.windows(2).all(|pair| pair[0] < pair[1]));
        let slack = range * 1e-6 + a.abs() * 1e-9;
        prop_assert!(all[0] >= a - slack && all[all.len() - 1] <= a + range + slack);
    }

    #[test]
    fn any_chart_is_a_picture(points in prop::collection::vec((any::<f64>(), any::<f64>()), 0..30), log_x: bool, title: String) {
        let svg = LineChart { title, log_x, ..chart(&points) }.svg();
        prop_assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
        prop_assert!(!svg.contains("NaN"));
    }
}
