//! Texts of strangers, made fit to be kept and shown.

/// A name for people: without control characters and those that turn the direction of writing, without white space at its
/// ends, at most `most` octets, cut at a character.
pub fn clean(text: &str, most: usize) -> String {
    let kept: String = text.chars().filter(|c| !c.is_control() && !turns(*c)).collect();
    cut(kept.trim(), most).trim_end().to_owned()
}

/// A text inside a line for people: control characters become spaces; what is longer than `most` octets ends in `…`.
pub fn shown(text: &str, most: usize) -> String {
    let line: String = text.chars().map(|c| if c.is_control() || turns(c) { ' ' } else { c }).collect();
    let line = line.trim();
    if line.len() <= most {
        return line.to_owned();
    }
    format!("{}…", cut(line, most.saturating_sub('…'.len_utf8())).trim_end())
}

/// The longest start of at most `most` octets that ends at a character.
pub fn cut(text: &str, most: usize) -> &str {
    text.get(..text.floor_char_boundary(most)).unwrap_or_default()
}

/// Characters that make text read in another order than it is written (Unicode TR 36 §3.1).
const fn turns(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_their_letters_and_lose_what_is_none() {
        assert_eq!(clean("  Ada\0 Love\u{7}lace\r\n", 256), "Ada Lovelace");
        assert_eq!(clean("evil\u{202e}gpj", 256), "evilgpj");
        assert_eq!(clean("안녕 Иван Ωμέγα שלום 田中 नमस्ते", 256), "안녕 Иван Ωμέγα שלום 田中 नमस्ते");
        assert_eq!(clean("ääää", 5), "ää");
        assert_eq!(clean("\0\u{1}", 5), "");
    }

    #[test]
    fn a_line_says_that_it_was_cut() {
        assert_eq!(shown("a\nb", 10), "a b");
        assert_eq!(shown("äöü", 6), "äöü");
        assert_eq!(shown("äöüß", 7), "äö…");
    }
}
