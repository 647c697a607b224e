//! Reading manifests: files and folders of YAML and JSON, several documents per file, `List` objects.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::cluster_objects::{ClusterObjects, LabObject};
use crate::error::{Error, Result};

impl ClusterObjects {
    /// Reads a file, or every `.yaml`, `.yml` and `.json` file of a folder, recursively and ordered by name.
    ///
    /// # Errors
    /// A file cannot be read, or a document is not a Kubernetes object.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let mut cluster = Self::new();
        for file in manifest_files(path.as_ref())? {
            let text = fs::read_to_string(&file).map_err(Error::file("cannot read", &file))?;
            cluster.extend(parse(&text, &file.display().to_string())?);
        }
        Ok(cluster)
    }

    /// Parses YAML or JSON text.
    ///
    /// # Errors
    /// A document is not a Kubernetes object.
    pub fn parse(text: &str) -> Result<Self> {
        Ok(parse(text, "manifest")?.into_iter().collect())
    }
}

/// Parses the objects in a text; `origin` names the text in errors.
///
/// # Errors
/// A document is not a Kubernetes object.
pub fn parse(text: &str, origin: &str) -> Result<Vec<LabObject>> {
    let wrong = |message: String| Error::Manifest { origin: origin.to_owned(), message };
    // Kubernetes accepts only `true` and `false` as booleans, so that a label `on: y` is a string.
    let options = serde_saphyr::options! { strict_booleans: true };
    let documents: Vec<Value> =
        serde_saphyr::from_multiple_with_options(text, options).map_err(|error| wrong(error.to_string()))?;
    let mut objects = Vec::new();
    for document in documents {
        flatten(document, &mut objects).map_err(&wrong)?;
    }
    Ok(objects)
}

fn flatten(document: Value, objects: &mut Vec<LabObject>) -> Result<(), String> {
    let is_list = document.get("kind").and_then(Value::as_str).is_some_and(|kind| kind.ends_with("List"));
    match document {
        Value::Null => Ok(()),
        Value::Object(mut fields) if is_list && fields.contains_key("items") => {
            let Some(Value::Array(items)) = fields.remove("items") else {
                return Err("`items` of a List: expected a sequence".to_owned());
            };
            items.into_iter().try_for_each(|item| flatten(item, objects))
        }
        document => {
            objects.push(LabObject::from_value(document)?);
            Ok(())
        }
    }
}

/// Returns the files that [`ClusterObjects::read`] reads, in order.
///
/// # Errors
/// The path cannot be read.
pub fn manifest_files(path: &Path) -> Result<Vec<PathBuf>> {
    let about = fs::metadata(path).map_err(Error::file("cannot read", path))?;
    if !about.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut entries = fs::read_dir(path)
        .and_then(|entries| {
            entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>()
        })
        .map_err(Error::file("cannot read", path))?;
    entries.sort();
    let mut files = Vec::new();
    for entry in entries {
        let hidden = entry.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        let extension = entry.extension().and_then(|extension| extension.to_str());
        if hidden {
            continue;
        } else if entry.is_dir() {
            files.extend(manifest_files(&entry)?);
        } else if matches!(extension, Some("yaml" | "yml" | "json")) {
            files.push(entry);
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster_objects::ObjectRef;

    #[test]
    fn several_documents_lists_and_unknown_kinds_are_parsed() {
        let cluster = ClusterObjects::parse(
            "# nothing but a comment\n---\napiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Service\n  \
             metadata: {name: a, labels: {on: y}}\n- {apiVersion: v1, kind: Pod, metadata: {name: p, namespace: n}}\n---\n\
             apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: deny}\n---\n",
        )
        .unwrap();
        let names: Vec<String> = cluster.objects().map(|object| object.name().to_string()).collect();
        assert_eq!(names, ["NetworkPolicy deny", "Pod n/p", "Service default/a"]);
        let Some(LabObject::Service(service)) = cluster.get(&ObjectRef::new("Service", "default", "a"))
        else {
            panic!("the Service is not typed");
        };
        assert_eq!(service.metadata.labels.as_ref().unwrap()["on"], "y");
    }

    #[test]
    fn json_is_parsed() {
        let text = r#"{"apiVersion":"v1","kind":"ServiceList","items":[{"apiVersion":"v1","kind":"Service","metadata":{"name":"a"}}]}"#;
        assert_eq!(ClusterObjects::parse(text).unwrap().objects().count(), 1);
    }

    #[test]
    fn errors_name_the_file_and_the_field() {
        let cases = [
            (
                "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: x}]}\n",
                "Service a: field `spec.ports[0].port`",
            ),
            ("apiVersion: v1\nkind: Service\n", "`metadata.name` is missing"),
            ("kind: Service\n", "`apiVersion` is missing"),
            ("a: [\n", "line"),
        ];
        for (text, expected) in cases {
            let error = parse(text, "web.yaml").unwrap_err().to_string();
            assert!(
                error.starts_with("web.yaml: ") && error.contains(expected),
                "{error:?} lacks {expected:?}"
            );
        }
    }

    #[test]
    fn a_folder_is_read_recursively() {
        let folder = tempfile::tempdir().unwrap();
        let service = |name: &str| format!("apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\n");
        fs::create_dir(folder.path().join("sub")).unwrap();
        for (file, name) in [("a.yaml", "a"), ("sub/b.yml", "b"), ("c.txt", "c"), (".d.yaml", "d")] {
            fs::write(folder.path().join(file), service(name)).unwrap();
        }
        let names: Vec<String> =
            ClusterObjects::read(folder.path()).unwrap().objects().map(|object| object.name().name).collect();
        assert_eq!(names, ["a", "b"]);
    }
}
