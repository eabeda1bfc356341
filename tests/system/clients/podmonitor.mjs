// Checks the PodMonitor that comes as JSON on stdin against the schema of its custom resource definition.
import { readFileSync } from "node:fs";
import { PodMonitor } from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/PodMonitor";

new PodMonitor(JSON.parse(readFileSync(0, "utf8"))).validate();
console.log("valid");
