{{- define "pinnace.name" -}}
{{- default .Release.Name .Values.nameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "pinnace.serviceAccountName" -}}
{{- default (include "pinnace.name" .) .Values.serviceAccount.name -}}
{{- end -}}

{{- define "pinnace.selectorLabels" -}}
app.kubernetes.io/name: pinnace
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end -}}

{{- /* managed-by is Helm here: "pinnace" marks what the operator itself creates. */ -}}
{{- define "pinnace.labels" -}}
{{ include "pinnace.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "pinnace.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}
{{- end -}}
