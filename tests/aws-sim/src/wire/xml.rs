//! A writer for the XML of the query protocols: elements and text, nothing else.

use std::fmt::{self, Write};

#[derive(Debug, Default)]
pub struct Xml(String);

impl Xml {
    /// `<tag>inner</tag>`.
    pub fn element(&mut self, tag: &str, inner: impl FnOnce(&mut Xml)) -> &mut Self {
        self.raw(format_args!("<{tag}>"));
        inner(self);
        self.raw(format_args!("</{tag}>"))
    }

    pub fn text(&mut self, tag: &str, value: impl fmt::Display) -> &mut Self {
        let value = escape(&value.to_string());
        self.raw(format_args!("<{tag}>{value}</{tag}>"))
    }

    /// Text without an element of its own.
    pub fn plain(&mut self, value: impl fmt::Display) -> &mut Self {
        let value = escape(&value.to_string());
        self.raw(format_args!("{value}"))
    }

    pub fn optional(&mut self, tag: &str, value: Option<impl fmt::Display>) -> &mut Self {
        match value {
            Some(value) => self.text(tag, value),
            None => self,
        }
    }

    /// `<list><item>..</item><item>..</item></list>`; an empty list is an empty element.
    pub fn list<T>(
        &mut self,
        list: &str,
        item: &str,
        of: impl IntoIterator<Item = T>,
        mut each: impl FnMut(&mut Xml, T),
    ) -> &mut Self {
        self.element(list, |x| {
            for one in of {
                x.element(item, |x| each(x, one));
            }
        })
    }

    /// A list of plain values.
    pub fn values<T: fmt::Display>(
        &mut self,
        list: &str,
        item: &str,
        of: impl IntoIterator<Item = T>,
    ) -> &mut Self {
        self.element(list, |x| {
            for one in of {
                x.text(item, one);
            }
        })
    }

    fn raw(&mut self, text: fmt::Arguments<'_>) -> &mut Self {
        self.0.write_fmt(text).expect("a String takes everything");
        self
    }

    pub fn finish(self) -> String {
        self.0
    }
}

/// Markup escaped; control characters that XML 1.0 cannot hold replaced.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\r' => out.push_str("&#13;"),
            '\n' | '\t' => out.push(c),
            c if c < ' ' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::Xml;

    #[test]
    fn nests_and_escapes() {
        let mut xml = Xml::default();
        xml.element("a", |x| {
            x.text("b", "1 < 2 & \"3\"").list("set", "item", [1, 2], |x, n| {
                x.text("n", n);
            });
            x.optional("none", None::<u8>).values("v", "member", ["x"]);
        });
        assert_eq!(
            xml.finish(),
            "<a><b>1 &lt; 2 &amp; &quot;3&quot;</b><set><item><n>1</n></item><item><n>2</n></item></set>\
             <v><member>x</member></v></a>"
        );
    }
}
