//! The fields of a JSON body of the control API, read one by one, so that a mistake is told with the name of
//! the field and what it may be.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde_json::{Map, Value};

#[derive(Debug)]
pub struct Fields {
    left: Map<String, Value>,
    known: Vec<&'static str>,
}

impl Fields {
    pub fn parse(body: &[u8]) -> Result<Self, String> {
        match serde_json::from_slice(body) {
            Ok(Value::Object(left)) => Ok(Self {
                left,
                known: Vec::new(),
            }),
            Ok(_) => Err("the body must be a JSON object".to_owned()),
            Err(error) => Err(format!("the body is not JSON: {error}")),
        }
    }

    /// Everything that is left.
    pub fn all(&self) -> Map<String, Value> {
        self.left.clone()
    }

    /// A field once; null is as good as none.
    fn take(&mut self, name: &'static str) -> Option<Value> {
        self.known.push(name);
        self.left.remove(name).filter(|v| !v.is_null())
    }

    pub fn text(&mut self, name: &'static str) -> Result<Option<String>, String> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) if !text.is_empty() => Ok(Some(text)),
            Some(other) => Err(format!("{name}: must be a text that is not empty, not {other}")),
        }
    }

    pub fn one_of(
        &mut self,
        name: &'static str,
        allowed: &[&'static str],
    ) -> Result<Option<&'static str>, String> {
        let Some(value) = self.take(name) else {
            return Ok(None);
        };
        let found = allowed.iter().find(|a| value.as_str() == Some(a));
        match found {
            Some(found) => Ok(Some(found)),
            None => Err(format!(
                "{name}: must be one of {}, not {value}",
                allowed.join(", ")
            )),
        }
    }

    pub fn number(
        &mut self,
        name: &'static str,
        allowed: RangeInclusive<f64>,
    ) -> Result<Option<f64>, String> {
        let Some(value) = self.take(name) else {
            return Ok(None);
        };
        match value.as_f64().filter(|n| allowed.contains(n)) {
            Some(number) => Ok(Some(number)),
            None => Err(format!(
                "{name}: must be a number from {} to {}, not {value}",
                allowed.start(),
                allowed.end()
            )),
        }
    }

    pub fn whole(&mut self, name: &'static str, allowed: RangeInclusive<u32>) -> Result<Option<u32>, String> {
        let Some(value) = self.take(name) else {
            return Ok(None);
        };
        let number = value.as_u64().and_then(|n| u32::try_from(n).ok());
        match number.filter(|n| allowed.contains(n)) {
            Some(number) => Ok(Some(number)),
            None => Err(format!(
                "{name}: must be a whole number from {} to {}, not {value}",
                allowed.start(),
                allowed.end()
            )),
        }
    }

    /// Simulated seconds.
    pub fn seconds(
        &mut self,
        name: &'static str,
        allowed: RangeInclusive<f64>,
    ) -> Result<Option<Duration>, String> {
        Ok(self.number(name, allowed)?.map(Duration::from_secs_f64))
    }

    pub fn required_seconds(
        &mut self,
        name: &'static str,
        allowed: RangeInclusive<f64>,
    ) -> Result<Duration, String> {
        let range = format!("from {} to {}", allowed.start(), allowed.end());
        self.seconds(name, allowed)?
            .ok_or_else(|| format!("{name}: is missing; it is a number of simulated seconds {range}"))
    }

    /// An object of texts, such as tags.
    pub fn texts(&mut self, name: &'static str) -> Result<Vec<(String, String)>, String> {
        let wrong = || format!("{name}: must be an object whose values are texts");
        match self.take(name) {
            None => Ok(Vec::new()),
            Some(Value::Object(map)) => map
                .into_iter()
                .map(|(k, v)| Ok((k, v.as_str().ok_or_else(wrong)?.to_owned())))
                .collect(),
            Some(_) => Err(wrong()),
        }
    }

    pub fn list(&mut self, name: &'static str) -> Result<Vec<String>, String> {
        let wrong = || format!("{name}: must be a list of texts");
        match self.take(name) {
            None => Ok(Vec::new()),
            Some(Value::Array(items)) => items
                .into_iter()
                .map(|v| Ok(v.as_str().ok_or_else(wrong)?.to_owned()))
                .collect(),
            Some(_) => Err(wrong()),
        }
    }

    /// Refuses what nobody asked for.
    pub fn finish(self, of: &str) -> Result<(), String> {
        match self.left.keys().next() {
            None => Ok(()),
            Some(unknown) => Err(format!(
                "{unknown}: {of} has no such field; its fields are {}",
                self.known.join(", ")
            )),
        }
    }
}
