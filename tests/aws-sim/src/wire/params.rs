//! Parameters of the query protocol: flat names such as `Filter.1.Value.2`.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::account::Tags;
use crate::error::{ApiError, ApiResult, ec2};
use crate::glob;

/// First segments of parameters that name resources.
const NAMING: &[&str] = &[
    "AutoScalingGroupName",
    "AutoScalingGroupNames",
    "InstanceId",
    "InstanceIds",
    "LaunchTemplateId",
    "LaunchTemplateName",
    "ResourceId",
    "SubnetId",
];

#[derive(Clone, Debug, Default)]
pub struct Params(BTreeMap<String, String>);

/// One page of a listing: where it starts, and how many it holds.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    start: usize,
    size: usize,
}

impl Page {
    /// A token is the position of the next item; anything else is no token of ours.
    pub fn parse(token: Option<&str>, size: Option<&str>, largest: usize) -> Result<Self, String> {
        let start = match token {
            None => 0,
            Some(token) => token
                .strip_prefix("at-")
                .and_then(|t| t.parse().ok())
                .ok_or_else(|| format!("{token:?} is not a valid next token"))?,
        };
        let size = match size {
            None => largest,
            Some(size) => size
                .parse::<usize>()
                .ok()
                .filter(|n| *n >= 1)
                .ok_or_else(|| format!("{size:?} is not a valid page size"))?
                .min(largest),
        };
        Ok(Self { start, size })
    }

    /// The same page, with so many items at most.
    pub fn at_most(self, size: Option<usize>) -> Self {
        Self {
            size: size.map_or(self.size, |size| self.size.min(size)),
            ..self
        }
    }

    /// The items of the page, and the token of the next one.
    pub fn cut<T>(self, items: Vec<T>) -> (Vec<T>, Option<String>) {
        let end = self.start.saturating_add(self.size);
        let next = (end < items.len()).then(|| format!("at-{end}"));
        (items.into_iter().skip(self.start).take(self.size).collect(), next)
    }
}

impl Params {
    pub fn parse(body: &[u8]) -> Self {
        Self(form_urlencoded::parse(body).into_owned().collect())
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub fn action(&self) -> &str {
        self.get("Action").unwrap_or_default()
    }

    /// The values `name.1`, `name.2`, ... in order.
    pub fn list(&self, name: &str) -> Vec<String> {
        (1..)
            .map_while(|n| self.0.get(&format!("{name}.{n}")).cloned())
            .collect()
    }

    /// Everything under `prefix.`, without it.
    pub fn under(&self, prefix: &str) -> BTreeMap<String, String> {
        let dotted = format!("{prefix}.");
        let inside = self
            .0
            .iter()
            .filter_map(|(k, v)| Some((k.strip_prefix(&dotted)?.to_owned(), v.clone())));
        inside.collect()
    }

    pub fn bool(&self, name: &str) -> Result<Option<bool>, String> {
        match self.get(name) {
            None => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(other) => Err(format!("{name} must be true or false, not {other:?}")),
        }
    }

    /// Refuses parameters that nothing here looks at; `known` are first segments of names.
    pub fn only(&self, known: &[&str]) -> Result<(), String> {
        let first = |k: &str| k.split('.').next().unwrap_or_default().to_owned();
        let own = ["Action", "Version"];
        match self
            .0
            .keys()
            .map(|k| first(k))
            .find(|k| !known.contains(&&**k) && !own.contains(&&**k))
        {
            Some(unknown) => Err(format!("The parameter {unknown} is not recognized")),
            None => Ok(()),
        }
    }

    /// Tags written `PREFIX.N.Key` and `PREFIX.N.Value`.
    pub fn tags(&self, prefix: &str) -> Tags {
        (1..)
            .map_while(|n| {
                let key = self.get(&format!("{prefix}.{n}.Key"))?;
                let value = self.get(&format!("{prefix}.{n}.Value")).unwrap_or_default();
                Some((key.to_owned(), value.to_owned()))
            })
            .collect()
    }

    pub fn filters(&self) -> Vec<Filter> {
        (1..)
            .map_while(|n| {
                let name = self.get(&format!("Filter.{n}.Name"))?.to_owned();
                Some(Filter {
                    name,
                    values: self.list(&format!("Filter.{n}.Value")),
                })
            })
            .collect()
    }

    /// The values of parameters that name resources.
    pub fn names(&self) -> Vec<String> {
        let naming = |key: &str| {
            let first = key.split('.').next().unwrap_or_default();
            NAMING.contains(&first)
        };
        let found = self.0.iter().filter(|(k, _)| naming(k));
        found.map(|(_, v)| v.clone()).collect()
    }

    /// For the journal.
    pub fn to_json(&self) -> Value {
        let own = ["Action", "Version"];
        let shown = self.0.iter().filter(|(k, _)| !own.contains(&k.as_str()));
        Value::Object(
            shown
                .map(|(k, v)| (k.clone(), Value::String(v.clone())))
                .collect(),
        )
    }
}

/// A filter of EC2: all filters must match, any of their values, with `*` and `?`.
#[derive(Debug)]
pub struct Filter {
    pub name: String,
    pub values: Vec<String>,
}

impl Filter {
    pub fn matches(&self, value: &str) -> bool {
        self.values.iter().any(|v| glob::matches(v, value))
    }
}

/// Whether something with these tags and fields passes all filters; a name that is no field is refused.
pub fn passes<'a>(
    filters: &[Filter],
    tags: Option<&Tags>,
    field: impl Fn(&str) -> Option<Vec<&'a str>>,
) -> ApiResult<bool> {
    let mut passed = true;
    for filter in filters {
        let tagged = match (filter.name.strip_prefix("tag:"), tags) {
            (Some(key), Some(tags)) => Some(tags.get(key).is_some_and(|v| filter.matches(v))),
            (None, Some(tags)) if filter.name == "tag-key" => Some(tags.keys().any(|k| filter.matches(k))),
            _ => None,
        };
        let by_field = || field(&filter.name).map(|values| values.iter().any(|v| filter.matches(v)));
        passed &= tagged
            .or_else(by_field)
            .ok_or_else(|| unknown_filter(&filter.name))?;
    }
    Ok(passed)
}

fn unknown_filter(name: &str) -> ApiError {
    ec2::value(format!("The filter '{name}' is invalid"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_tags_and_filters() {
        let params = Params::parse(
            b"Action=X&Id.1=a&Id.2=b&Tag.1.Key=k&Tag.1.Value=v%20w&Filter.1.Name=tag%3Ak&Filter.1.Value.1=v*",
        );
        assert_eq!(params.list("Id"), ["a", "b"]);
        let tags = params.tags("Tag");
        assert_eq!(tags, Tags::from([("k".to_owned(), "v w".to_owned())]));
        let filters = params.filters();
        assert_eq!(passes(&filters, Some(&tags), |_| None), Ok(true));
        assert_eq!(passes(&filters, Some(&Tags::new()), |_| None), Ok(false));
        assert!(passes(&filters, None, |_| None).is_err());
        assert!(params.only(&["Id", "Tag", "Filter"]).is_ok());
        assert!(params.only(&["Id", "Tag"]).is_err());
    }

    #[test]
    fn pages_follow_each_other() {
        let all: Vec<u8> = (0..5).collect();
        let first = Page::parse(None, Some("2"), 100).expect("valid");
        let (items, token) = first.cut(all.clone());
        assert_eq!((items, token.as_deref()), (vec![0, 1], Some("at-2")));
        let rest = Page::parse(token.as_deref(), None, 100).expect("valid");
        assert_eq!(rest.cut(all), (vec![2, 3, 4], None));
        assert!(Page::parse(Some("bogus"), None, 100).is_err());
    }
}
