//! Columns as Go's `tabwriter` aligns them with Docker's settings: cells that end with a tab are
//! padded to the widest of their column plus three, at least ten; the last cell of a line is not.

const PADDING: usize = 3;
const WIDTH_MIN: usize = 10;

/// Aligns lines whose cells are separated by tabs.
pub(crate) fn align(text: &str) -> String {
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split('\t').collect()).collect();
    let mut aligned = String::with_capacity(text.len() * 2);
    for (number, cells) in lines.iter().enumerate() {
        for (column, cell) in cells.iter().enumerate() {
            aligned.push_str(cell);
            if column + 1 < cells.len() {
                let width = width_of_block(&lines, number, column);
                let missing = width.saturating_sub(cell.chars().count());
                aligned.extend(std::iter::repeat_n(' ', missing));
            }
        }
        aligned.push('\n');
    }
    aligned
}

/// A column is a block of consecutive lines that have a cell there which ends with a tab.
fn width_of_block(lines: &[Vec<&str>], line: usize, column: usize) -> usize {
    let has_cell = |cells: &&Vec<&str>| column + 1 < cells.len();
    let above = lines[..line].iter().rev().take_while(has_cell);
    let below = lines[line..].iter().take_while(has_cell);
    let widest = above.chain(below).map(|cells| cells[column].chars().count()).max();
    (widest.unwrap_or_default() + PADDING).max(WIDTH_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align_as_dockers_do() {
        let text = "ID\tNAME\tMODE\tREPLICAS\tIMAGE\tPORTS\n\
                    rcsof43khfz1\tweb\treplicated\t3/3\tbusybox:latest\t\n";
        // Recorded from Docker 20.10.24.
        assert_eq!(
            align(text),
            "ID             NAME      MODE         REPLICAS   IMAGE            PORTS\n\
             rcsof43khfz1   web       replicated   3/3        busybox:latest   \n"
        );
        assert_eq!(align("ID\tNAME\n"), "ID        NAME\n");
        assert_eq!(align(""), "");
    }
}
