//! The IAM policy of the operator, evaluated: an explicit deny wins, an allow is needed, and nothing else
//! is allowed. The policy file is the one Terraform attaches, with the same placeholders.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::account::Tags;
use crate::glob;

#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    #[error("policy is not JSON")]
    Json(#[from] serde_json::Error),
    #[error("policy has the placeholder ${{{0}}}, which has no value")]
    Placeholder(String),
    #[error("policy statement {index}: {problem}")]
    Statement { index: usize, problem: String },
}

/// What is known about a request: condition keys and their values.
#[derive(Clone, Debug, Default)]
pub struct Context(BTreeMap<String, Vec<String>>);

impl Context {
    pub fn with(mut self, key: &str, value: impl Into<String>) -> Self {
        self.0.insert(key.to_ascii_lowercase(), vec![value.into()]);
        self
    }

    pub fn request_tags(mut self, tags: &Tags) -> Self {
        for (key, value) in tags {
            self = self.with(&format!("aws:RequestTag/{key}"), value);
        }
        if !tags.is_empty() {
            self.0
                .insert("aws:tagkeys".to_owned(), tags.keys().cloned().collect());
        }
        self
    }

    pub fn resource_tags(mut self, tags: &Tags) -> Self {
        for (key, value) in tags {
            self = self.with(&format!("aws:ResourceTag/{key}"), value);
        }
        self
    }

    pub fn tag_keys(mut self, keys: &[String]) -> Self {
        self.0.insert("aws:tagkeys".to_owned(), keys.to_vec());
        self
    }
}

#[derive(Debug)]
pub struct Policy {
    statements: Vec<Statement>,
}

#[derive(Debug)]
struct Statement {
    allow: bool,
    actions: Vec<String>,
    resources: Vec<String>,
    conditions: Vec<Condition>,
}

#[derive(Debug)]
struct Condition {
    quantifier: Quantifier,
    test: Test,
    negated: bool,
    if_exists: bool,
    key: String,
    values: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Quantifier {
    One,
    ForAllValues,
    ForAnyValue,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Test {
    Equals,
    EqualsIgnoreCase,
    Like,
    Null,
}

impl Policy {
    /// Reads a policy document; `values` fills its `${name}` placeholders.
    pub fn parse(text: &str, values: &BTreeMap<&str, String>) -> Result<Self, PolicyError> {
        let text = substitute(text, values)?;
        let document: Value = serde_json::from_str(&text)?;
        let statements = match &document["Statement"] {
            Value::Array(list) => list.iter().collect(),
            single @ Value::Object(_) => vec![single],
            _ => Vec::new(),
        };
        let statements = statements
            .into_iter()
            .enumerate()
            .map(|(index, value)| {
                Statement::parse(value).map_err(|problem| PolicyError::Statement { index, problem })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { statements })
    }

    pub fn allows(&self, action: &str, resource: &str, context: &Context) -> bool {
        let mut allowed = false;
        for statement in self
            .statements
            .iter()
            .filter(|s| s.applies(action, resource, context))
        {
            if !statement.allow {
                return false;
            }
            allowed = true;
        }
        allowed
    }
}

fn substitute(text: &str, values: &BTreeMap<&str, String>) -> Result<String, PolicyError> {
    let mut out = text.to_owned();
    for (name, value) in values {
        out = out.replace(&format!("${{{name}}}"), value);
    }
    match out.find("${") {
        None => Ok(out),
        Some(at) => Err(PolicyError::Placeholder(
            out[at + 2..].split('}').next().unwrap_or_default().to_owned(),
        )),
    }
}

impl Statement {
    fn parse(value: &Value) -> Result<Self, String> {
        let known = ["Sid", "Effect", "Action", "Resource", "Condition"];
        let object = value.as_object().ok_or("not an object")?;
        if let Some(other) = object.keys().find(|k| !known.contains(&k.as_str())) {
            return Err(format!("element {other} is not supported"));
        }
        let allow = match object.get("Effect").and_then(Value::as_str) {
            Some("Allow") => true,
            Some("Deny") => false,
            other => return Err(format!("Effect {other:?} is neither Allow nor Deny")),
        };
        let mut conditions = Vec::new();
        if let Some(block) = object.get("Condition") {
            for (operator, keys) in block.as_object().ok_or("Condition is not an object")? {
                for (key, values) in keys.as_object().ok_or("a condition operator needs an object")? {
                    conditions.push(Condition::parse(operator, key, values)?);
                }
            }
        }
        Ok(Self {
            allow,
            actions: strings(object.get("Action").ok_or("Action is missing")?)?,
            resources: strings(object.get("Resource").ok_or("Resource is missing")?)?,
            conditions,
        })
    }

    fn applies(&self, action: &str, resource: &str, context: &Context) -> bool {
        let action = action.to_ascii_lowercase();
        self.actions
            .iter()
            .any(|a| glob::matches(&a.to_ascii_lowercase(), &action))
            && self.resources.iter().any(|r| glob::matches(r, resource))
            && self.conditions.iter().all(|c| c.holds(context))
    }
}

impl Condition {
    fn parse(operator: &str, key: &str, values: &Value) -> Result<Self, String> {
        let (quantifier, rest) = match operator.split_once(':') {
            Some(("ForAllValues", rest)) => (Quantifier::ForAllValues, rest),
            Some(("ForAnyValue", rest)) => (Quantifier::ForAnyValue, rest),
            _ => (Quantifier::One, operator),
        };
        let (rest, if_exists) = rest.strip_suffix("IfExists").map_or((rest, false), |r| (r, true));
        let (test, negated) = match rest {
            "StringEquals" | "ArnEquals" | "Bool" => (Test::Equals, false),
            "StringNotEquals" => (Test::Equals, true),
            "StringEqualsIgnoreCase" => (Test::EqualsIgnoreCase, false),
            "StringLike" | "ArnLike" => (Test::Like, false),
            "StringNotLike" => (Test::Like, true),
            "Null" => (Test::Null, false),
            _ => return Err(format!("condition operator {operator} is not supported")),
        };
        Ok(Self {
            quantifier,
            test,
            negated,
            if_exists,
            key: key.to_ascii_lowercase(),
            values: strings(values)?,
        })
    }

    fn holds(&self, context: &Context) -> bool {
        let present = context.0.get(&self.key);
        if self.test == Test::Null {
            return self.values.iter().any(|v| (v == "true") == present.is_none());
        }
        let Some(present) = present else {
            // ForAllValues is true of nothing; a negated test of an absent key holds.
            return self.quantifier == Quantifier::ForAllValues || self.if_exists || self.negated;
        };
        let one =
            |value: &String| self.values.iter().any(|wanted| self.compare(wanted, value)) != self.negated;
        match self.quantifier {
            Quantifier::ForAllValues => present.iter().all(one),
            Quantifier::One | Quantifier::ForAnyValue => present.iter().any(one),
        }
    }

    fn compare(&self, wanted: &str, value: &str) -> bool {
        match self.test {
            Test::Equals => wanted == value,
            Test::EqualsIgnoreCase => wanted.eq_ignore_ascii_case(value),
            Test::Like => glob::matches(wanted, value),
            Test::Null => false,
        }
    }
}

fn strings(value: &Value) -> Result<Vec<String>, String> {
    let one = |v: &Value| match v {
        Value::String(s) => Ok(s.clone()),
        Value::Bool(b) => Ok(b.to_string()),
        other => Err(format!("{other} is not a string")),
    };
    match value {
        Value::Array(list) => list.iter().map(one).collect(),
        single => Ok(vec![one(single)?]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(statements: &str) -> Policy {
        Policy::parse(
            &format!(r#"{{"Version":"2012-10-17","Statement":{statements}}}"#),
            &BTreeMap::new(),
        )
        .expect("a valid policy")
    }

    fn tags(pairs: &[(&str, &str)]) -> Tags {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    #[test]
    fn nothing_is_allowed_that_is_not_named() {
        let p = policy(r#"[{"Effect":"Allow","Action":"eks:List*","Resource":"*"}]"#);
        assert!(p.allows("eks:ListNodegroups", "arn:x", &Context::default()));
        assert!(!p.allows("eks:DeleteNodegroup", "arn:x", &Context::default()));
    }

    #[test]
    fn a_deny_wins_over_an_allow() {
        let p = policy(
            r#"[{"Effect":"Allow","Action":"*","Resource":"*"},{"Effect":"Deny","Action":"eks:Del*","Resource":"*"}]"#,
        );
        assert!(!p.allows("eks:DeleteNodegroup", "arn:x", &Context::default()));
        assert!(p.allows("eks:CreateNodegroup", "arn:x", &Context::default()));
    }

    #[test]
    fn tags_of_the_resource_gate() {
        let p = policy(
            r#"[{"Effect":"Allow","Action":"eks:DeleteNodegroup","Resource":"*",
                 "Condition":{"StringEquals":{"aws:ResourceTag/pinnace.dev/cluster":"demo"}}}]"#,
        );
        let allowed = |t: &Tags| {
            p.allows(
                "eks:DeleteNodegroup",
                "arn:x",
                &Context::default().resource_tags(t),
            )
        };
        assert!(allowed(&tags(&[("pinnace.dev/cluster", "demo")])));
        assert!(!allowed(&tags(&[("pinnace.dev/cluster", "other")])));
        assert!(!allowed(&Tags::new()));
    }

    #[test]
    fn for_all_values_bounds_tag_keys() {
        let p = policy(
            r#"[{"Effect":"Allow","Action":"*","Resource":"*",
                 "Condition":{"ForAllValues:StringLike":{"aws:TagKeys":["pinnace.dev/*","team"]}}}]"#,
        );
        let allowed = |t: &Tags| p.allows("eks:TagResource", "arn:x", &Context::default().request_tags(t));
        assert!(allowed(&tags(&[("pinnace.dev/pool", "a"), ("team", "b")])));
        assert!(!allowed(&tags(&[("pinnace.dev/pool", "a"), ("cost", "b")])));
        assert!(allowed(&Tags::new()), "true of no keys at all");
    }

    #[test]
    fn null_asks_for_presence() {
        let p = policy(
            r#"[{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"Null":{"aws:RequestTag/owner":"false"}}}]"#,
        );
        assert!(p.allows(
            "a:b",
            "r",
            &Context::default().request_tags(&tags(&[("owner", "x")]))
        ));
        assert!(!p.allows("a:b", "r", &Context::default()));
    }

    #[test]
    fn placeholders_need_values_and_unknown_elements_are_refused() {
        let text = r#"{"Statement":[{"Effect":"Allow","Action":"a:b","Resource":"arn:${region}"}]}"#;
        let filled = Policy::parse(text, &BTreeMap::from([("region", "eu".to_owned())])).expect("filled");
        assert!(filled.allows("a:b", "arn:eu", &Context::default()));
        assert!(
            matches!(Policy::parse(text, &BTreeMap::new()), Err(PolicyError::Placeholder(p)) if p == "region")
        );
        let not_action = r#"{"Statement":[{"Effect":"Allow","NotAction":"a:b","Resource":"*"}]}"#;
        assert!(matches!(
            Policy::parse(not_action, &BTreeMap::new()),
            Err(PolicyError::Statement { .. })
        ));
    }
}
