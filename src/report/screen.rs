//! For tests: a small terminal, of endless width and height, with a scroll-back that can be written.

/// What a terminal shows, as far as the live face asks it to.
#[derive(Default)]
pub struct Screen {
    pub rows: Vec<Vec<char>>,
    pub row: usize,
    pub column: usize,
}

impl Screen {
    /// Takes bytes; panics at a sequence that the face has no reason to write, and where a line
    /// that moves would have been wrapped.
    pub fn write(&mut self, text: &str) {
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            self.rows.resize(self.rows.len().max(self.row + 1), Vec::new());
            match c {
                '\r' => self.column = 0,
                '\n' => (self.row, self.column) = (self.row + 1, 0),
                '\x1b' => self.sequence(&mut chars),
                c => {
                    assert!(!c.is_control());
                    let row = &mut self.rows[self.row];
                    row.resize(row.len().max(self.column + 1), ' ');
                    row[self.column] = c;
                    self.column += 1;
                }
            }
        }
    }

    fn sequence(&mut self, chars: &mut std::str::Chars<'_>) {
        assert_eq!(chars.next(), Some('['));
        let mut sequence = String::new();
        while !sequence.ends_with(|c: char| c.is_ascii_alphabetic()) {
            sequence.push(chars.next().unwrap());
        }
        match sequence.as_str() {
            "K" => self.rows[self.row].truncate(self.column),
            "J" => {
                self.rows[self.row].truncate(self.column);
                self.rows.truncate(self.row + 1);
            }
            "?2026h" | "?2026l" => {}
            up => {
                let up: usize = up.strip_suffix('A').unwrap().parse().unwrap();
                self.row = self.row.checked_sub(up).unwrap();
            }
        }
    }

    pub fn text(&self) -> String {
        let lines: Vec<String> = self.rows.iter().map(|row| row.iter().collect()).collect();
        lines.join("\n")
    }
}
