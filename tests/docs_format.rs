//! Is what `docs/format.md` shows what the code reads and writes?

use keepset::model::manifest::{Manifest, VERSION};

#[test]
fn the_manifest_in_the_format_page_is_one_that_we_read_and_write_unchanged() {
    let page = include_str!("../docs/format.md");
    let section = page.split("\n## ").find(|section| section.starts_with("manifest.json")).unwrap();
    let example = section.split("```json\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let manifest: Manifest = serde_json::from_str(example).unwrap();
    assert_eq!(manifest.version, VERSION);
    let shown: serde_json::Value = serde_json::from_str(example).unwrap();
    assert_eq!(serde_json::to_value(&manifest).unwrap(), shown);
}

#[test]
fn every_link_within_the_format_page_leads_somewhere() {
    let page = include_str!("../docs/format.md");
    let anchor = |title: &str| {
        title.to_lowercase().chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-')).collect::<String>().replace(' ', "-")
    };
    let titles: Vec<String> = page.lines().filter_map(|line| line.strip_prefix("## ")).map(anchor).collect();
    for target in page.split("](#").skip(1).filter_map(|rest| rest.split(')').next()) {
        assert!(titles.iter().any(|title| title == target), "#{target}");
    }
}
