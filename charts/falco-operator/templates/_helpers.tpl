{{- define "falco-operator.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* What selects pods; a selector can't be changed, so nothing that may ever change belongs here. */}}
{{- define "falco-operator.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* The labels of an object: dict "root" $ "component" "…". */}}
{{- define "falco-operator.labels" -}}
{{ include "falco-operator.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: falco-operator
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* An image: dict "image" … "tag" "what stands for an empty tag". */}}
{{- define "falco-operator.image" -}}
{{- if .image.digest -}}
{{ .image.repository }}@{{ .image.digest }}
{{- else -}}
{{ .image.repository }}:{{ .image.tag | default .tag }}
{{- end -}}
{{- end -}}

{{- define "falco-operator.operatorImage" -}}
{{- include "falco-operator.image" (dict "image" .Values.image "tag" .Chart.AppVersion) -}}
{{- end -}}

{{- define "falco-operator.controllerAccount" -}}
{{- .Values.controller.serviceAccount.name | default (printf "%s-controller" (include "falco-operator.fullname" .)) -}}
{{- end -}}

{{- define "falco-operator.agentAccount" -}}
{{- if eq .Values.agent.mode "sidecar" -}}
{{- .Values.agent.sidecar.serviceAccountName -}}
{{- else -}}
{{- .Values.agent.serviceAccount.name | default (printf "%s-agent" (include "falco-operator.fullname" .)) -}}
{{- end -}}
{{- end -}}

{{- define "falco-operator.agentNamespace" -}}
{{- if eq .Values.agent.mode "sidecar" -}}
{{- .Values.agent.sidecar.namespace -}}
{{- else -}}
{{- .Release.Namespace -}}
{{- end -}}
{{- end -}}

{{/* The agents' DaemonSets, as a JSON list. */}}
{{- define "falco-operator.agentDaemonSets" -}}
{{- if eq .Values.agent.mode "sidecar" -}}
{{- toJson .Values.agent.sidecar.daemonSets -}}
{{- else -}}
{{- toJson (list (printf "%s-agent" (include "falco-operator.fullname" .))) -}}
{{- end -}}
{{- end -}}

{{/* The agents' pods, as a label selector in text. */}}
{{- define "falco-operator.agentSelector" -}}
{{- if eq .Values.agent.mode "sidecar" -}}
{{- .Values.agent.sidecar.selector -}}
{{- else -}}
app.kubernetes.io/name={{ .Chart.Name }},app.kubernetes.io/instance={{ .Release.Name }},app.kubernetes.io/component=agent
{{- end -}}
{{- end -}}

{{/* The same selector as Kubernetes' objects have it. */}}
{{- define "falco-operator.agentLabelSelector" -}}
{{- $labels := dict -}}
{{- $expressions := list -}}
{{- range $term := regexFindAll "[^,(]+(\\([^)]*\\))?" (include "falco-operator.agentSelector" .) -1 -}}
{{- $words := regexFindAll "[^\\s,()!=]+" $term -1 -}}
{{- $key := first $words -}}
{{- if contains "(" $term -}}
{{- $operator := ternary "NotIn" "In" (eq (index $words 1) "notin") -}}
{{- $expressions = append $expressions (dict "key" $key "operator" $operator "values" (slice $words 2)) -}}
{{- else if contains "!=" $term -}}
{{- $expressions = append $expressions (dict "key" $key "operator" "NotIn" "values" (rest $words | default (list ""))) -}}
{{- else if contains "=" $term -}}
{{- $_ := set $labels $key (rest $words | join "") -}}
{{- else -}}
{{- $operator := ternary "DoesNotExist" "Exists" (contains "!" $term) -}}
{{- $expressions = append $expressions (dict "key" $key "operator" $operator) -}}
{{- end -}}
{{- end -}}
{{- $selector := dict -}}
{{- with $labels }}{{ $_ := set $selector "matchLabels" . }}{{ end -}}
{{- with $expressions }}{{ $_ := set $selector "matchExpressions" . }}{{ end -}}
{{- toYaml $selector -}}
{{- end -}}

{{/* Environment of every container of ours: who the pod is, what is logged, the proxies. */}}
{{- define "falco-operator.env" -}}
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: POD_NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
- name: POD_IP
  valueFrom: {fieldRef: {fieldPath: status.podIP}}
- name: FALCO_OPERATOR_LOG
  value: {{ .Values.log.level | quote }}
{{- include "falco-operator.proxyEnv" . }}
{{- end -}}

{{- define "falco-operator.proxyEnv" -}}
{{- with .Values.proxy.httpProxy }}
- name: HTTP_PROXY
  value: {{ . | quote }}
{{- end }}
{{- with .Values.proxy.httpsProxy }}
- name: HTTPS_PROXY
  value: {{ . | quote }}
{{- end }}
{{- with .Values.proxy.noProxy }}
- name: NO_PROXY
  value: {{ . | quote }}
{{- end }}
{{- end -}}

{{/* What Pod Security calls restricted: for pods that need nothing of their node. */}}
{{- define "falco-operator.restrictedPod" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "falco-operator.restrictedContainer" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* Annotations of what exists for the pre-delete hook only, with its place in the order. */}}
{{- define "falco-operator.cleanupHook" -}}
helm.sh/hook: pre-delete
helm.sh/hook-weight: {{ . | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end -}}

{{- define "falco-operator.cleanupSubjects" -}}
- kind: ServiceAccount
  name: {{ include "falco-operator.fullname" . }}-cleanup
  namespace: {{ .Release.Namespace }}
{{- end -}}

{{/* Falco's options for its driver; what is as Falco has it by itself is left to falco.yaml. */}}
{{- define "falco-operator.driverArgs" -}}
{{- $options := list -}}
{{- if eq .Values.driver.kind "none" -}}
{{- $options = append $options "engine.kind=nodriver" -}}
{{- else -}}
{{- $at := printf "engine.%s" .Values.driver.kind -}}
{{- $driver := .Values.driver.modernEbpf -}}
{{- if eq .Values.driver.kind "kmod" -}}
{{- $driver = .Values.driver.kmod -}}
{{- $options = append $options "engine.kind=kmod" -}}
{{- else if ne (int $driver.cpusForEachBuffer) 2 -}}
{{- $options = append $options (printf "%s.cpus_for_each_buffer=%d" $at (int $driver.cpusForEachBuffer)) -}}
{{- end -}}
{{- if ne (int $driver.bufSizePreset) 4 -}}
{{- $options = append $options (printf "%s.buf_size_preset=%d" $at (int $driver.bufSizePreset)) -}}
{{- end -}}
{{- if $driver.dropFailedExit -}}
{{- $options = append $options (printf "%s.drop_failed_exit=true" $at) -}}
{{- end -}}
{{- end -}}
{{- range $options }}
- -o
- {{ . }}
{{- end }}
{{- end -}}

{{/* The Secret with the webhook's certificate, where somebody else makes that. */}}
{{- define "falco-operator.webhookSecret" -}}
{{- if eq .Values.webhook.certificate.source "secret" -}}
{{- required "webhook.certificate.secretName names the Secret with the certificate of yours" .Values.webhook.certificate.secretName -}}
{{- else -}}
{{- .Values.webhook.certificate.secretName | default (printf "%s-webhook-certificate" (include "falco-operator.fullname" .)) -}}
{{- end -}}
{{- end -}}
