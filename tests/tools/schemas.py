"""Turns the OpenAPI description of a Kubernetes release into strict JSON schemas for kubeconform.

    schemas.py SWAGGER_JSON FOLDER

kubeconform's own schemas lie on a web server; these come with the Go module of Kubernetes.
"""

import json
import pathlib
import sys

QUANTITY = "io.k8s.apimachinery.pkg.api.resource.Quantity"


def strict(node):
    """Local references become references into one file; objects with known fields refuse unknown ones."""
    if isinstance(node, list):
        return [strict(item) for item in node]
    if not isinstance(node, dict):
        return node
    if node.get("format") == "int-or-string":
        return {"type": ["string", "integer"]}
    result = {key: strict(value) for key, value in node.items() if key != "description"}
    if isinstance(node.get("$ref"), str):
        result["$ref"] = node["$ref"].replace("#/definitions/", "_definitions.json#/definitions/")
    if isinstance(node.get("properties"), dict) and "additionalProperties" not in node:
        result["additionalProperties"] = False
    return result


def main():
    source, folder = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    definitions = json.loads(source.read_text())["definitions"]
    folder.mkdir(parents=True, exist_ok=True)
    converted = {}
    for name, definition in definitions.items():
        # A property may be called "description" or "format": only schemas are stripped, not maps of properties.
        properties = definition.get("properties")
        converted[name] = strict({k: v for k, v in definition.items() if k != "properties"})
        if properties is not None:
            converted[name]["properties"] = {k: strict(v) for k, v in properties.items()}
            converted[name].setdefault("additionalProperties", False)
    converted[QUANTITY] = {"type": ["string", "number"]}
    (folder / "_definitions.json").write_text(json.dumps({"definitions": converted}))
    for name, definition in definitions.items():
        for kind in definition.get("x-kubernetes-group-version-kind", []):
            group = kind["group"].split(".")[0]
            parts = [kind["kind"], group, kind["version"]] if group else [kind["kind"], kind["version"]]
            path = folder / ("-".join(parts).lower() + ".json")
            path.write_text(json.dumps({"$ref": f"_definitions.json#/definitions/{name}"}))
    (folder / ".complete").touch()


main()
