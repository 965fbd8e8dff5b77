//! The metrics of `vpnfix watch`, over HTTP, and the alert rules made for them.

use std::fs;
use std::process::Command;

use vpnfix_tests::need_root;
use vpnfix_tests::scene::Scene;
use vpnfix_tests::traffic;
use vpnfix_tests::watch::{Watch, metric};

#[test]
fn metrics_are_openmetrics_and_the_server_keeps_its_bounds() {
    need_root!();
    let scene = Scene::hijacked();
    let mut watch = Watch::fixing(&scene, &["--no-probe"]);
    watch.wait_repair("applied");
    let accept = "Accept: application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.2";
    let (head, body) = watch.http(&format!("GET /metrics HTTP/1.1\r\nHost: x\r\n{accept}\r\n\r\n"));
    assert!(head.contains("application/openmetrics-text; version=1.0.0"), "{head}");
    openmetrics(&body);
    promtool(&scene, &watch.metrics());
    let (head, body) = watch.http("HEAD /metrics HTTP/1.1\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200 ") && body.is_empty(), "{head}");
    assert!(watch.http("GET /etc/passwd HTTP/1.1\r\n\r\n").0.starts_with("HTTP/1.1 404 "));
    assert!(watch.http("POST /metrics HTTP/1.1\r\n\r\n").0.starts_with("HTTP/1.1 405 "));
    // Silent connections beside it do not keep a scraper from its answer for good.
    let silent: Vec<std::net::TcpStream> = traffic::inside(&scene.gw(), || {
        (0..20).filter_map(|_| std::net::TcpStream::connect(("127.0.0.1", vpnfix_tests::watch::METRICS)).ok()).collect()
    });
    assert_eq!(silent.len(), 20);
    assert!(metric(&watch.metrics(), "vpnfix_judgements_total").is_some_and(|count| count >= 1.0));
    drop(silent);
    watch.stop();
}

/// Prometheus's own tool, where it is installed (Debian's package prometheus), judges the metrics and the alert rules.
fn promtool(scene: &Scene, metrics: &str) {
    let run = |arguments: &[&str], input: &str| {
        let file = scene.run_dir().join("metrics");
        fs::write(&file, input).expect("a file");
        let output = Command::new("promtool")
            .args(arguments)
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../contrib/prometheus"))
            .stdin(fs::File::open(&file).expect("a file"))
            .output();
        let output = output.expect("promtool could not be run");
        let said = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "promtool {arguments:?}: {}\n{input}", String::from_utf8_lossy(&said));
    };
    if Command::new("promtool").arg("--version").output().is_err() {
        println!("promtool is not installed: its checks are left out");
        return;
    }
    run(&["check", "metrics"], metrics);
    run(&["check", "rules", "vpnfix-alerts.yml"], "");
    run(&["test", "rules", "vpnfix-alerts-test.yml"], "");
}

/// The text keeps to OpenMetrics 1.0: families with type before their samples, no sample of another family between them,
/// counters end in `_total`, labels are quoted, the last line is `# EOF`.
fn openmetrics(text: &str) {
    assert!(text.ends_with("# EOF\n"), "{text}");
    let mut families: Vec<(String, String)> = Vec::new();
    for line in text.lines().filter(|line| *line != "# EOF") {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a type");
            assert!(families.iter().all(|(known, _)| known != name), "{name} is there twice");
            families.push((name.to_owned(), kind.to_owned()));
        } else if !line.starts_with("# ") {
            let (name, kind) = families.last().expect("a sample before any family");
            let (sample, value) = line.rsplit_once(' ').expect("a value");
            assert!(value.parse::<f64>().is_ok(), "{line}");
            let (sample, labels) = sample.split_once('{').unwrap_or((sample, "}"));
            let suffix = sample.strip_prefix(name.as_str()).unwrap_or_else(|| panic!("{line} is not of {name}"));
            let allowed: &[&str] = match kind.as_str() {
                "counter" => &["_total"],
                "histogram" => &["_bucket", "_sum", "_count"],
                "gauge" => &[""],
                other => panic!("a type that is not expected: {other}"),
            };
            assert!(allowed.contains(&suffix), "{line}: {kind}");
            assert!(labels.ends_with('}') && labels.matches('"').count() % 2 == 0, "{line}");
        }
    }
    assert!(families.len() > 10, "{text}");
}
