{{/* Environment of every node. Takes (list $ component). */}}
{{- define "meshfold.env" -}}
{{- $ := index . 0 -}}
{{- $part := index . 1 -}}
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: MESHFOLD_STATE_DIR
  value: /var/lib/meshfold/node
- name: MESHFOLD_CONFIG
  value: /etc/meshfold/meshfold.toml
- name: MESHFOLD_NATS
  value: {{ include "meshfold.brokerUrl" $ | quote }}
- name: MESHFOLD_HEALTH_LISTEN
  value: {{ printf "0.0.0.0:%d" (int $.Values.health.port) | quote }}
{{- with $part.app }}
- name: MESHFOLD_APP
  value: {{ . | quote }}
{{- end }}
{{- with $part.read }}
- name: MESHFOLD_READ
  value: {{ join "," . | quote }}
{{- end }}
{{- $auth := $.Values.broker.auth }}
{{- if eq $auth.method "creds" }}
- name: MESHFOLD_CREDS
  value: /etc/meshfold/broker/{{ $auth.credsKey }}
{{- else if eq $auth.method "nkey" }}
- name: MESHFOLD_NKEY
  value: /etc/meshfold/broker/{{ $auth.nkeyKey }}
{{- else if eq $auth.method "token" }}
- name: MESHFOLD_TOKEN_FILE
  value: /etc/meshfold/broker/{{ $auth.tokenKey }}
{{- else if eq $auth.method "user" }}
- name: NATS_USER
  valueFrom: {secretKeyRef: {name: {{ $auth.existingSecret | quote }}, key: {{ $auth.userKey | quote }}}}
- name: MESHFOLD_PASSWORD_FILE
  value: /etc/meshfold/broker/{{ $auth.passwordKey }}
{{- end }}
{{- with $.Values.broker.tls }}
{{- if .existingSecret }}
- name: MESHFOLD_CA
  value: /etc/meshfold/tls/{{ .caKey }}
{{- if .certKey }}
- name: MESHFOLD_CERT
  value: /etc/meshfold/tls/{{ .certKey }}
- name: MESHFOLD_KEY
  value: /etc/meshfold/tls/{{ .keyKey }}
{{- end }}
{{- end }}
{{- end }}
{{- with $.Values.otel }}
{{- if .endpoint }}
- name: OTEL_EXPORTER_OTLP_ENDPOINT
  value: {{ .endpoint | quote }}
- name: OTEL_EXPORTER_OTLP_PROTOCOL
  value: {{ .protocol | quote }}
- name: OTEL_RESOURCE_ATTRIBUTES
  value: k8s.pod.name=$(POD_NAME),k8s.namespace.name={{ $.Release.Namespace }}
{{- with .sampler }}
- name: OTEL_TRACES_SAMPLER
  value: {{ . | quote }}
{{- end }}
{{- with .samplerArg }}
- name: OTEL_TRACES_SAMPLER_ARG
  value: {{ . | quote }}
{{- end }}
{{- with .headersSecret }}
- name: OTEL_EXPORTER_OTLP_HEADERS
  valueFrom: {secretKeyRef: {name: {{ . | quote }}, key: headers}}
{{- end }}
{{- end }}
{{- end }}
{{- with $.Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Mounts of every node. Takes $. */}}
{{- define "meshfold.mounts" -}}
- {name: state, mountPath: /var/lib/meshfold}
- {name: tmp, mountPath: /tmp}
- {name: config, mountPath: /etc/meshfold/meshfold.toml, subPath: meshfold.toml, readOnly: true}
{{- if not (has .Values.broker.auth.method (list "mesh" "none")) }}
- {name: broker, mountPath: /etc/meshfold/broker, readOnly: true}
{{- end }}
{{- if .Values.broker.tls.existingSecret }}
- {name: broker-tls, mountPath: /etc/meshfold/tls, readOnly: true}
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Volumes of every node but its state. Takes $. */}}
{{- define "meshfold.volumes" -}}
- name: tmp
  emptyDir: {sizeLimit: 64Mi}
- name: config
  configMap: {name: "{{ include "meshfold.fullname" . }}-config"}
{{- if not (has .Values.broker.auth.method (list "mesh" "none")) }}
- name: broker
  secret: {secretName: {{ .Values.broker.auth.existingSecret | quote }}, defaultMode: 0440}
{{- end }}
{{- with .Values.broker.tls.existingSecret }}
- name: broker-tls
  secret: {secretName: {{ . | quote }}, defaultMode: 0440}
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The container of a node. Takes (list $ component further-env further-mounts). */}}
{{- define "meshfold.container" -}}
{{- $ := index . 0 -}}
{{- $part := index . 1 -}}
- name: node
  image: {{ include "meshfold.image" $ | quote }}
  imagePullPolicy: {{ $.Values.image.pullPolicy }}
  args: [node, run]
  env:
    {{- include "meshfold.env" (list $ $part) | nindent 4 }}
    {{- with index . 2 }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with $.Values.extraEnvFrom }}
  envFrom: {{- toYaml . | nindent 4 }}
  {{- end }}
  ports:
    - {name: http, containerPort: {{ $.Values.health.port }}, protocol: TCP}
  startupProbe:
    httpGet: {path: /healthz/startup, port: http}
    {{- toYaml $.Values.probes.startup | nindent 4 }}
  readinessProbe:
    httpGet: {path: /readyz, port: http}
    {{- toYaml $.Values.probes.readiness | nindent 4 }}
  livenessProbe:
    httpGet: {path: /livez, port: http}
    {{- toYaml $.Values.probes.liveness | nindent 4 }}
  resources: {{- toYaml $part.resources | nindent 4 }}
  securityContext: {{- toYaml $.Values.securityContext | nindent 4 }}
  volumeMounts:
    {{- include "meshfold.mounts" $ | nindent 4 }}
    {{- with index . 3 }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- with $.Values.extraContainers }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* What every pod has. Takes (list $ component). */}}
{{- define "meshfold.podBasics" -}}
{{- $ := index . 0 -}}
{{- $part := index . 1 -}}
serviceAccountName: "{{ include "meshfold.serviceAccount" $ }}"
automountServiceAccountToken: false
# The variables Kubernetes makes of services would be taken for settings.
enableServiceLinks: false
terminationGracePeriodSeconds: {{ $.Values.terminationGracePeriodSeconds }}
securityContext: {{- toYaml $.Values.podSecurityContext | nindent 2 }}
{{- with $.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - {name: {{ . | quote }}}
  {{- end }}
{{- end }}
{{- with $part.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with $part.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $part.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Annotations of every pod: those of the component, and what makes a changed configuration roll them. */}}
{{- define "meshfold.podAnnotations" -}}
{{- $ := index . 0 -}}
checksum/config: {{ toToml (dict "node" $.Values.config) | sha256sum }}
{{- with (index . 1).podAnnotations }}
{{ toYaml . }}
{{- end }}
{{- end -}}
