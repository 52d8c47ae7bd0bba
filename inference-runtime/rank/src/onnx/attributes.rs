//! Typed access to a node's attributes.

use super::proto::{AttributeProto, GraphProto, NodeProto, TensorProto};

pub struct Attributes<'a>(&'a NodeProto);

impl<'a> Attributes<'a> {
    pub fn of(node: &'a NodeProto) -> Self {
        Self(node)
    }

    fn find(&self, name: &str) -> Option<&'a AttributeProto> {
        self.0.attribute.iter().find(|attribute| attribute.name == name)
    }

    pub fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    pub fn int(&self, name: &str, default: i64) -> i64 {
        self.find(name)
            .map_or(default, |attribute| attribute.i.unwrap_or(0))
    }

    pub fn float(&self, name: &str, default: f32) -> f32 {
        self.find(name)
            .map_or(default, |attribute| attribute.f.unwrap_or(0.0))
    }

    pub fn ints(&self, name: &str) -> Option<&'a [i64]> {
        self.find(name).map(|attribute| attribute.ints.as_slice())
    }

    pub fn floats(&self, name: &str) -> &'a [f32] {
        self.find(name)
            .map_or(&[], |attribute| attribute.floats.as_slice())
    }

    pub fn text(&self, name: &str) -> Option<&'a str> {
        self.find(name)
            .and_then(|attribute| std::str::from_utf8(attribute.s.as_ref()?).ok())
    }

    pub fn texts(&self, name: &str) -> Vec<&'a str> {
        let strings = self
            .find(name)
            .map_or(&[][..], |attribute| attribute.strings.as_slice());
        strings
            .iter()
            .map(|bytes| std::str::from_utf8(bytes).unwrap_or(""))
            .collect()
    }

    pub fn tensor(&self, name: &str) -> Option<&'a TensorProto> {
        self.find(name).and_then(|attribute| attribute.t.as_ref())
    }

    pub fn graph(&self, name: &str) -> Option<&'a GraphProto> {
        self.find(name).and_then(|attribute| attribute.g.as_ref())
    }
}
