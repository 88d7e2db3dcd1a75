//! `openapi.yaml` as tests use it: its operations, and checks of single requests and answers.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use jsonschema::Validator;
use reqwest::header::HeaderMap;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

/// The methods that an OpenAPI path can have.
pub const METHODS: [&str; 7] = ["get", "head", "post", "put", "patch", "delete", "options"];

/// One operation of the contract.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Operation {
    /// The method in lower case.
    pub method: String,
    /// The path as in the contract: `/api/v1/monitors/{id}`.
    pub path: String,
}

impl Operation {
    /// Returns the method for a request.
    pub fn http_method(&self) -> Method {
        Method::from_bytes(self.method.to_uppercase().as_bytes()).unwrap()
    }
}

impl std::fmt::Display for Operation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.method.to_uppercase(), self.path)
    }
}

/// The parsed contract.
pub struct Contract {
    document: Value,
    validators: Mutex<HashMap<String, Arc<Validator>>>,
}

/// Returns the contract, which is read once.
pub fn contract() -> &'static Contract {
    static CONTRACT: OnceLock<Contract> = OnceLock::new();
    CONTRACT.get_or_init(|| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../openapi.yaml");
        let text = std::fs::read_to_string(&path).unwrap();
        let document = serde_saphyr::from_str(&text).expect("openapi.yaml is YAML");
        Contract {
            document,
            validators: Mutex::default(),
        }
    })
}

fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

impl Contract {
    /// Returns the value at a JSON pointer and the pointer of its true place. Follows references.
    fn find(&self, pointer: &str) -> Option<(String, &Value)> {
        let found = self.document.pointer(pointer)?;
        match found.get("$ref").and_then(Value::as_str) {
            Some(reference) => self.find(reference.trim_start_matches('#')),
            None => Some((pointer.to_owned(), found)),
        }
    }

    /// Returns the value at a JSON pointer.
    pub fn part(&self, pointer: &str) -> &Value {
        self.find(pointer)
            .unwrap_or_else(|| panic!("openapi.yaml has {pointer}"))
            .1
    }

    fn path_item(&self, path: &str) -> String {
        self.find(&format!("/paths/{}", escaped(path)))
            .unwrap_or_else(|| panic!("openapi.yaml has {path}"))
            .0
    }

    /// Returns every operation.
    pub fn operations(&self) -> BTreeSet<Operation> {
        let mut operations = BTreeSet::new();
        for path in self.paths() {
            for method in METHODS {
                if self
                    .find(&format!("{}/{method}", self.path_item(&path)))
                    .is_some()
                {
                    operations.insert(Operation {
                        method: method.to_owned(),
                        path: path.clone(),
                    });
                }
            }
        }
        operations
    }

    /// Returns every path.
    pub fn paths(&self) -> Vec<String> {
        self.document["paths"]
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect()
    }

    /// Returns the operation of a request. A path without parameters wins over one with parameters, and an API path over a ping URL.
    pub fn operation(&self, method: &Method, path: &str) -> Option<Operation> {
        let path = path.split('?').next().unwrap_or_default();
        let segments: Vec<&str> = path.trim_end_matches('/').split('/').collect();
        let fits = |template: &str| {
            let wanted: Vec<&str> = template.split('/').collect();
            wanted.len() == segments.len()
                && wanted
                    .iter()
                    .zip(&segments)
                    .all(|(wanted, found)| wanted.starts_with('{') || wanted == found)
        };
        let parameters = |template: &String| template.matches('{').count();
        let template = self
            .paths()
            .into_iter()
            .filter(|template| fits(template))
            .min_by_key(parameters)?;
        let operation = Operation {
            method: method.as_str().to_lowercase(),
            path: template,
        };
        self.operations().contains(&operation).then_some(operation)
    }

    fn operation_part(&self, operation: &Operation, rest: &str) -> Option<(String, &Value)> {
        self.find(&format!(
            "{}/{}{rest}",
            self.path_item(&operation.path),
            operation.method
        ))
    }

    /// Returns the statuses that an operation lists.
    pub fn statuses(&self, operation: &Operation) -> BTreeSet<u16> {
        let (_, responses) = self.operation_part(operation, "/responses").unwrap();
        responses
            .as_object()
            .unwrap()
            .keys()
            .map(|status| status.parse().unwrap())
            .collect()
    }

    /// Returns the scope that an operation needs, or None if it needs no key.
    pub fn scope(&self, operation: &Operation) -> Option<String> {
        let (_, security) = self
            .operation_part(operation, "/security")
            .unwrap_or_else(|| panic!("{operation} names its scope"));
        security[0]["bearer"][0].as_str().map(str::to_owned)
    }

    /// True if an operation needs a JSON body.
    pub fn wants_json(&self, operation: &Operation) -> bool {
        self.operation_part(operation, "/requestBody/content/application~1json")
            .is_some()
    }

    /// Returns the query parameters of an operation.
    pub fn query_parameters(&self, operation: &Operation) -> BTreeSet<String> {
        let Some((at, parameters)) = self.operation_part(operation, "/parameters") else {
            return BTreeSet::new();
        };
        let count = parameters.as_array().unwrap().len();
        let parameters = (0..count).map(|index| self.part(&format!("{at}/{index}")));
        parameters
            .filter(|one| one["in"] == "query")
            .map(|one| one["name"].as_str().unwrap().to_owned())
            .collect()
    }

    /// Returns the faults of a value by the schema at a pointer.
    pub fn faults(&self, pointer: &str, value: &Value) -> Vec<String> {
        let validator = {
            let mut validators = self.validators.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(
                validators
                    .entry(pointer.to_owned())
                    .or_insert_with(|| Arc::new(self.validator(pointer))),
            )
        };
        validator
            .iter_errors(value)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect()
    }

    fn validator(&self, pointer: &str) -> Validator {
        let mut schema = self.document.clone();
        schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
        schema["$ref"] = json!(format!("#{}", pointer.replace('{', "%7B").replace('}', "%7D")));
        let options = jsonschema::options().should_validate_formats(true);
        options
            .build(&schema)
            .unwrap_or_else(|error| panic!("the schema at {pointer}: {error}"))
    }

    /// Checks a JSON body that the server accepted.
    pub fn check_request(&self, operation: &Operation, body: &Value) {
        let Some((at, _)) = self.operation_part(operation, "/requestBody/content/application~1json/schema")
        else {
            return;
        };
        let faults = self.faults(&at, body);
        assert!(
            faults.is_empty(),
            "{operation} took a body that the contract refuses: {faults:#?}\n{body:#}"
        );
    }

    /// Checks an answer: the contract lists its status, and its headers and its body follow the contract.
    pub fn check_answer(&self, operation: &Operation, status: StatusCode, headers: &HeaderMap, body: &[u8]) {
        let shown = String::from_utf8_lossy(body);
        assert_ne!(status, StatusCode::INTERNAL_SERVER_ERROR, "{operation}: {shown}");
        let request_id = headers.get("x-request-id");
        let request_id =
            request_id.unwrap_or_else(|| panic!("{operation} with {status} has no X-Request-Id"));
        let request_id = json!(request_id.to_str().unwrap());
        let faults = self.faults("/components/headers/RequestId/schema", &request_id);
        assert!(faults.is_empty(), "{operation} with {status}: {faults:#?}");
        if let Ok(problem) = serde_json::from_slice::<Value>(body)
            && let Some(alerted) = problem.get("request_id")
        {
            assert_eq!(*alerted, request_id, "{operation} with {status}");
        }
        let (at, _) = self
            .operation_part(operation, &format!("/responses/{}", status.as_str()))
            .unwrap_or_else(|| {
                panic!("{operation} answered {status}, which the contract does not list: {shown}")
            });
        self.check_response(
            &format!("{operation} with {status}"),
            &at,
            headers,
            (operation.method != "head").then_some(body),
        );
    }

    /// Checks an answer by the response at a pointer of the contract.
    pub fn check_response(&self, what: &str, at: &str, headers: &HeaderMap, body: Option<&[u8]>) {
        let response = self.part(at);
        for name in response
            .get("headers")
            .and_then(Value::as_object)
            .into_iter()
            .flat_map(|headers| headers.keys())
        {
            let (header_at, header) = self.find(&format!("{at}/headers/{}", escaped(name))).unwrap();
            match headers.get(name) {
                Some(value) => {
                    let faults = self.faults(&format!("{header_at}/schema"), &json!(value.to_str().unwrap()));
                    assert!(faults.is_empty(), "{what}: header {name}: {faults:#?}");
                }
                None => assert_ne!(header["required"], true, "{what} has no header {name}"),
            }
        }
        let Some(body) = body else { return };
        let Some(content) = response.get("content").and_then(Value::as_object) else {
            assert!(
                body.is_empty(),
                "{what} has a body: {}",
                String::from_utf8_lossy(body)
            );
            return;
        };
        let found = headers
            .get("content-type")
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        let found = found.split(';').next().unwrap_or_default();
        let media = content
            .get(found)
            .unwrap_or_else(|| panic!("{what} is of the type {found:?}"));
        if media.get("schema").is_none() {
            return;
        }
        let value = if found.ends_with("json") {
            serde_json::from_slice(body).unwrap_or_else(|error| panic!("{what} is JSON: {error}"))
        } else {
            json!(String::from_utf8_lossy(body))
        };
        let (schema_at, _) = self.find(&format!("{at}/content/{}", escaped(found))).unwrap();
        let faults = self.faults(&format!("{schema_at}/schema"), &value);
        assert!(
            faults.is_empty(),
            "{what} differs from the contract: {faults:#?}\n{value:#}"
        );
    }

    /// Returns every example in the document with the pointer of its schema.
    pub fn examples(&self) -> Vec<(String, Value)> {
        let mut found = Vec::new();
        collect_examples(&self.document, String::new(), &mut found);
        found
    }

    /// Returns the `webhooks` by name, with the pointers of their schemas.
    pub fn webhooks(&self) -> BTreeMap<String, String> {
        let hooks = self.document["webhooks"].as_object().unwrap();
        let schema =
            |name: &String| format!("/webhooks/{name}/post/requestBody/content/application~1json/schema");
        hooks.keys().map(|name| (name.clone(), schema(name))).collect()
    }
}

fn collect_examples(part: &Value, at: String, found: &mut Vec<(String, Value)>) {
    match part {
        Value::Object(members) => {
            let schema = if members.contains_key("schema") {
                format!("{at}/schema")
            } else {
                at.clone()
            };
            if let Some(example) = members.get("example") {
                found.push((schema.clone(), example.clone()));
            }
            match members.get("examples") {
                Some(Value::Array(examples)) => {
                    found.extend(examples.iter().map(|one| (at.clone(), one.clone())))
                }
                Some(Value::Object(examples)) => {
                    found.extend(
                        examples
                            .values()
                            .map(|one| (schema.clone(), one["value"].clone())),
                    );
                }
                _ => {}
            }
            for (key, member) in members {
                if !["example", "examples"].contains(&key.as_str()) {
                    collect_examples(member, format!("{at}/{}", escaped(key)), found);
                }
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                collect_examples(item, format!("{at}/{index}"), found);
            }
        }
        _ => {}
    }
}
