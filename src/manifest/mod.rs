//! Manifests: templates become text, text becomes objects, image names in them become content tags, and
//! the objects get the order in which they are applied. Pure: knows no cluster, no cache and no task.

mod chain;
mod collections;
mod data;
pub mod emit;
mod filters;
pub mod images;
pub mod order;
mod patterns;
pub mod template;
pub mod yaml;

use std::ops::Range;

/// The line of a text that holds the start of `range`, underlined, with its place.
fn excerpt(name: &str, text: &str, range: Range<usize>) -> Vec<String> {
    let start = range.start.min(text.len());
    let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
    let line_number = text[..start].matches('\n').count() + 1;
    let line = text[line_start..].lines().next().unwrap_or_default();
    let column = text[line_start..start].chars().count();
    let end = range.end.clamp(start, line_start + line.len().max(start - line_start));
    let width = text[start..end].chars().count().max(1);
    let number = line_number.to_string();
    let margin = " ".repeat(number.len());
    let blank: String = line.chars().take(column).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
    vec![
        format!("{margin}--> {name}:{line_number}:{}", column + 1),
        format!("{margin} |"),
        format!("{number} | {line}"),
        format!("{margin} | {blank}{}", "^".repeat(width)),
    ]
}
