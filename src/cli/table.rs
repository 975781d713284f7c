//! Columns for people.

/// The widest cell that is shown in full: the longest `namespace/name` of a set fits. Foreign snapshots can name any number of paths.
const WIDEST: usize = 320;

/// Rows under a heading, each column as wide as its widest cell.
#[derive(Clone, Debug)]
pub struct Table {
    right: Vec<bool>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Column titles; one that begins with `>` is set to the right, as numbers are.
    pub fn new(titles: &[&str]) -> Self {
        let right = titles.iter().map(|title| title.starts_with('>')).collect();
        Table { right, rows: vec![titles.iter().map(|title| title.trim_start_matches('>').to_owned()).collect()] }
    }

    /// One row; cells beyond the titles are left out, and longer ones than any name are cut, with `…` at their end.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().take(self.right.len()).map(cut).collect());
    }

    /// The titles and the rows as lines without trailing blanks.
    pub fn lines(&self) -> Vec<String> {
        let width = |column: usize| self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.right.len()).map(width).collect();
        let line = |row: &Vec<String>| {
            let cells: Vec<String> = row
                .iter()
                .zip(&widths)
                .zip(&self.right)
                .map(|((cell, width), right)| if *right { format!("{cell:>width$}") } else { format!("{cell:<width$}") })
                .collect();
            cells.join("  ").trim_end().to_owned()
        };
        self.rows.iter().map(line).collect()
    }
}

fn cut(cell: String) -> String {
    if cell.chars().nth(WIDEST).is_none() {
        return cell;
    }
    cell.chars().take(WIDEST - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_of_any_length_is_cut_and_cannot_panic() {
        let mut table = Table::new(&["paths", ">size"]);
        table.row(["é".repeat(100_000), "9".repeat(70_000)]);
        table.row(["x".repeat(WIDEST), "1".into()]);
        let lines = table.lines();
        assert!(lines.iter().all(|line| line.chars().count() <= 2 * WIDEST + 2), "{lines:?}");
        assert!(lines[1].contains("é…") && lines[1].ends_with("9…"), "{}", lines[1]);
        assert!(lines[2].starts_with(&"x".repeat(WIDEST)) && !lines[2].contains('…'), "{}", lines[2]);
    }

    #[test]
    fn numbers_stand_to_the_right_and_nothing_trails() {
        let mut table = Table::new(&["name", ">size", "note"]);
        table.row(["a".into(), "5".into(), String::new()]);
        table.row(["grün".into(), "1024".into(), "x".into()]);
        assert_eq!(table.lines(), ["name  size  note", "a        5", "grün  1024  x"]);
    }
}
