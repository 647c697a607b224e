{{- define "portcullis.name" -}}
{{- .Values.fullnameOverride | default .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "portcullis.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (include "portcullis.name" .) -}}
{{- end -}}

{{- define "portcullis.selector" -}}
app.kubernetes.io/name: {{ .Values.nameOverride | default .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "portcullis.labels" -}}
{{ include "portcullis.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}

{{- define "portcullis.arguments" -}}
- --config=/etc/portcullis/config.yaml
- --hostname-override=$(NODE_NAME)
{{- if .Values.networkPolicy.enabled }}
- --network-policy
{{- end }}
{{- if .Values.networkPolicy.audit }}
- --network-policy-audit
{{- end }}
{{- include "portcullis.podNetworkArguments" . }}
{{- if .Values.nftables.serviceCounters }}
- --nftables-service-counters
{{- end }}
{{- with .Values.statusPage.bindAddress }}
- {{ printf "--status-page-bind-address=%s" . | quote }}
{{- end }}
{{- range .Values.extraArgs }}
- {{ . | quote }}
{{- end }}
{{- end -}}

{{- define "portcullis.hasPodNetwork" -}}
{{- if ne .Values.podNetwork.mode "off" }}true{{ end -}}
{{- end -}}

{{- define "portcullis.podNetworkArguments" -}}
{{- $network := .Values.podNetwork -}}
{{- if include "portcullis.hasPodNetwork" . }}
- --pod-network={{ $network.mode }}
- --pod-network-wiring={{ $network.wiring }}
- --pod-network-mtu={{ int $network.mtu }}
- --pod-network-vxlan-id={{ int $network.vxlan.id }}
- --pod-network-vxlan-port={{ int $network.vxlan.port }}
- --pod-network-masquerade={{ $network.masquerade }}
{{- with $network.masqueradeExcludeCIDRs }}
- {{ printf "--pod-network-masquerade-exclude-cidrs=%s" (join "," .) | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{- /* A digest follows the tag only if one is set, as most registries have no tag of the chart's version beside it. */ -}}
{{- define "portcullis.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest -}}
{{- $image.repository }}{{ with $image.tag }}:{{ . }}{{ end }}@{{ $image.digest -}}
{{- else -}}
{{- $image.repository }}:{{ $image.tag | default .Chart.AppVersion -}}
{{- end -}}
{{- end -}}

{{- define "portcullis.container" -}}
image: {{ include "portcullis.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
command: [/usr/local/bin/portcullis]
env:
  - name: NODE_NAME
    valueFrom: {fieldRef: {fieldPath: spec.nodeName}}
  - name: KUBERNETES_SERVICE_HOST
    value: {{ required "apiServer.host: expected the address of the API server itself (not its ClusterIP), such as 192.0.2.1" .Values.apiServer.host | quote }}
  - name: KUBERNETES_SERVICE_PORT
    value: {{ .Values.apiServer.port | quote }}
  {{- with .Values.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
resources:
  {{- toYaml .Values.resources | nindent 2 }}
{{- end -}}

{{- define "portcullis.volumeMounts" -}}
- {name: config, mountPath: /etc/portcullis, readOnly: true}
- {name: xtables-lock, mountPath: /run/xtables.lock}
- {name: modules, mountPath: /lib/modules, readOnly: true}
- {name: run, mountPath: /run/portcullis}
{{- end -}}

{{- /* The port of an address with a port. */ -}}
{{- define "portcullis.port" -}}
{{- splitList ":" . | last -}}
{{- end -}}
