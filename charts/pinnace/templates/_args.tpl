{{- /* One argument for every flag of the operator; integers go through int64, because Helm reads them as floats. */ -}}
{{- define "pinnace.args" -}}
- {{ printf "--cluster-name=%s" .Values.cluster.name | quote }}
- {{ printf "--region=%s" .Values.cluster.region | quote }}
{{- with .Values.awsEndpointUrl }}
- {{ printf "--aws-endpoint-url=%s" . | quote }}
{{- end }}
- --namespace=$(POD_NAMESPACE)
- {{ printf "--runtime-image=%s" .Values.runtimeImage | quote }}
{{- range .Values.allowedRuntimeImages }}
- {{ printf "--allowed-runtime-images=%s" . | quote }}
{{- end }}
{{- range $name, $value := .Values.runtimeEnv }}
- {{ printf "--runtime-env=%s=%s" $name $value | quote }}
{{- end }}
{{- with .Values.operator }}
- --leader-elect={{ .leaderElect }}
- --lease-name={{ .leaseName }}
{{- if .dryRun }}
- --dry-run
{{- end }}
- --cloud-mutations={{ .cloudMutations }}
- --log-format={{ .logFormat }}
- --listen=0.0.0.0:8080
- --cloud-poll={{ .cloudPoll }}
- --load-period={{ .loadPeriod }}
- --node-idle={{ .nodeIdle }}
- --sweep-after={{ .sweepAfter }}
- --absent-twice={{ .absentTwice }}
- --inventory-max-age={{ .inventoryMaxAge }}
- --group-slots={{ int64 .groupSlots }}
- --group-max-nodes={{ int64 .groupMaxNodes }}
- --max-nodes={{ int64 .maxNodes }}
- --launch-burst={{ int64 .launchBurst }}
- --launch-per-second={{ .launchPerSecond }}
{{- end }}
{{- end -}}
