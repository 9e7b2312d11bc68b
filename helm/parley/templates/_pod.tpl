{{/* Security of every container: no privileges, read-only root. */}}
{{- define "parley.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* Security of every pod of ours; group 10001 lets it write its claims. */}}
{{- define "parley.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{/*
A probe that asks grpc.health.v1. The kubelet's own gRPC probe speaks no TLS, so under TLS a small client in the image asks.
Takes (list $ service).
*/}}
{{- define "parley.healthProbe" -}}
{{- $root := index . 0 -}}{{- $service := index . 1 -}}
{{- $public := and (eq $service "gateway") $root.Values.gateway.tlsSecret -}}
{{- if or $public (and (ne $service "gateway") (ne $root.Values.tls.mode "none")) -}}
exec: {command: {{ include "parley.probeCommand" . | fromYamlArray | toJson }}}
{{- else -}}
grpc: {port: 50051}
{{- end }}
{{- end }}

{{- define "parley.probeCommand" -}}
{{- $root := index . 0 -}}{{- $service := index . 1 -}}
- python3
- /opt/parley/bin/health_probe.py
- "50051"
{{- if and (eq $service "gateway") $root.Values.gateway.tlsSecret }}
- --ca=/etc/parley/public-tls/tls.crt
{{- else if and (ne $service "gateway") (ne $root.Values.tls.mode "none") }}
- --ca=/etc/parley/tls/ca.crt
- --cert=/etc/parley/tls/tls.crt
- --key=/etc/parley/tls/tls.key
- --server-name={{ include "parley.name" . }}
{{- end }}
{{- end }}

{{/*
Seconds that a pod of a service may take to go. Behind the drain calls are cut off and told so, then the engine is closed: vLLM's
processes end in order, for which the engine waits 30 s; killed in the middle, they leave shared memory. Takes (list $ service).
*/}}
{{- define "parley.graceSeconds" -}}
{{- $all := (index . 0).Values -}}
{{- $settings := default dict (index $all.services (index . 1)).settings -}}
{{- add $all.preStopSeconds $all.drainSeconds (ternary 40 5 (eq (dig "engine" "" $settings) "vllm")) -}}
{{- end }}

{{/*
Pod of a service, for Deployments and LeaderWorkerSets. Takes (list $ service).
Liveness: asr-context says NOT_SERVING while Redis is away, and under TLS a certificate may end, which no restart mends; there any
answer counts as alive.
*/}}
{{- define "parley.pod" -}}
{{- $root := index . 0 -}}{{- $service := index . 1 -}}
{{- $values := index $root.Values.services $service -}}
{{- $facts := index (include "parley.catalogue" $root | fromYaml) $service -}}
{{- $name := include "parley.name" . -}}
{{- $tls := ne $root.Values.tls.mode "none" -}}
{{- /* a probe that starts a process costs more than one that the kubelet makes itself */ -}}
{{- $period := ternary 5 2 (hasPrefix "exec" (include "parley.healthProbe" . | trim)) -}}
metadata:
  labels:
    {{- include "parley.labels" . | nindent 4 }}
    {{- with $values.podLabels }}{{ toYaml . | nindent 4 }}{{ end }}
  annotations:
    checksum/settings: {{ include "parley.settings" . | sha256sum }}
    {{- with $values.podAnnotations }}{{ toYaml . | nindent 4 }}{{ end }}
spec:
  serviceAccountName: {{ $name }}
  automountServiceAccountToken: false
  # Kubernetes would describe the Services in PARLEY_* variables, which the settings refuse.
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ include "parley.graceSeconds" . }}
  {{- with $root.Values.image.pullSecrets }}
  imagePullSecrets:
    {{- range . }}
    - name: {{ . | quote }}
    {{- end }}
  {{- end }}
  {{- with include "parley.priorityClass" . }}
  priorityClassName: {{ . | quote }}
  {{- end }}
  {{- with $values.runtimeClassName }}
  runtimeClassName: {{ . | quote }}
  {{- end }}
  securityContext:
    {{- include "parley.podSecurity" $root | nindent 4 }}
  {{- with $values.nodeSelector }}
  nodeSelector: {{ toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.tolerations }}
  tolerations: {{ toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.affinity }}
  affinity: {{ toYaml . | nindent 4 }}
  {{- end }}
  topologySpreadConstraints:
    {{- range tuple "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
    - maxSkew: 1
      topologyKey: {{ . }}
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "parley.selector" (list $root $service) | nindent 10 }}
    {{- end }}
  {{- if and $facts.weights (ne $root.Values.weights.source "claim") }}
  initContainers:
    # The manifest is the last thing that the weights job writes.
    - name: weights
      image: {{ include "parley.image" (list $root $service $values.image) | quote }}
      imagePullPolicy: {{ $root.Values.image.pullPolicy }}
      command: [sh, -c, 'until [ -f "$0" ]; do sleep 1; done', {{ printf "%s/parley.json" (include "parley.weightsRoot" $root) | quote }}]
      securityContext: {{ include "parley.containerSecurity" $root | nindent 8 }}
      resources: {requests: {cpu: 10m, memory: 16Mi}, limits: {memory: 64Mi}}
      volumeMounts:
        - {name: weights, mountPath: /weights, readOnly: true}
  {{- end }}
  containers:
    - name: {{ $service }}
      image: {{ include "parley.image" (list $root $service $values.image) | quote }}
      imagePullPolicy: {{ $root.Values.image.pullPolicy }}
      {{- if and (eq $service "chat-llm") $values.multiNode.enabled }}
      command: [sh, -c, 'ray start --head --port=6379 --disable-usage-stats && exec python3 -m {{ $facts.package }}']
      {{- end }}
      securityContext: {{ include "parley.containerSecurity" $root | nindent 8 }}
      env:
        - {name: PARLEY_CONFIG, value: /etc/parley/settings/settings.yaml}
        - {name: HOME, value: /cache}
        {{- if eq $service "asr-context" }}
        {{- if $root.Values.redis.bundled }}
        - name: REDIS_PASSWORD
          valueFrom: {secretKeyRef: {name: {{ include "parley.redisSecret" $root | quote }}, key: password}}
        - {name: PARLEY_ASR_CONTEXT_REDIS__URL, value: "redis://:$(REDIS_PASSWORD)@{{ include "parley.name" (list $root "redis") }}:6379/0"}
        {{- else }}
        - name: PARLEY_ASR_CONTEXT_REDIS__URL
          valueFrom: {secretKeyRef: {name: {{ required "redis.external.urlSecret is needed when redis.bundled is false" $root.Values.redis.external.urlSecret | quote }}, key: url}}
        {{- with $root.Values.redis.external.sentinel }}
        {{- if and .addresses .passwordSecret }}
        - name: PARLEY_ASR_CONTEXT_REDIS__SENTINEL__PASSWORD
          valueFrom: {secretKeyRef: {name: {{ .passwordSecret | quote }}, key: password}}
        {{- end }}
        {{- end }}
        {{- end }}
        {{- end }}
        {{- if and (eq $service "gateway") $root.Values.gateway.functionsSecret }}
        - name: PARLEY_GATEWAY_FUNCTIONS__REGISTERED
          valueFrom: {secretKeyRef: {name: {{ $root.Values.gateway.functionsSecret | quote }}, key: functions.json, optional: true}}
        - name: PARLEY_GATEWAY_FUNCTIONS__MCP_SERVERS
          valueFrom: {secretKeyRef: {name: {{ $root.Values.gateway.functionsSecret | quote }}, key: mcp_servers.json, optional: true}}
        {{- end }}
        {{- range $values.env }}
        - {name: {{ .name | quote }}, value: {{ .value | quote }}}
        {{- end }}
      ports:
        - {name: grpc, containerPort: 50051, protocol: TCP}
        - {name: metrics, containerPort: 9464, protocol: TCP}
        {{- if and (eq $service "gateway") $root.Values.gateway.http.enabled }}
        - {name: http, containerPort: 8080, protocol: TCP}
        {{- end }}
      resources:
        {{- range $kind, $amounts := $values.resources }}
        {{ $kind }}:
          {{- range $resource, $amount := $amounts }}
          {{- if not (kindIs "invalid" $amount) }}
          {{ $resource }}: {{ toJson $amount }}
          {{- end }}
          {{- end }}
        {{- end }}
      startupProbe:
        {{- include "parley.healthProbe" . | nindent 8 }}
        periodSeconds: {{ $period }}
        timeoutSeconds: 5
        failureThreshold: {{ ceil (divf $values.startupSeconds $period) | int }}
      readinessProbe:
        {{- include "parley.healthProbe" . | nindent 8 }}
        periodSeconds: {{ mul 2 $period | max 5 }}
        timeoutSeconds: 5
        failureThreshold: 2
      livenessProbe:
        {{- if or (eq $service "asr-context") (hasPrefix "exec" (include "parley.healthProbe" . | trim)) }}
        exec: {command: {{ append (include "parley.probeCommand" . | fromYamlArray) "--alive" | toJson }}}
        {{- else }}
        {{- include "parley.healthProbe" . | nindent 8 }}
        {{- end }}
        periodSeconds: 20
        timeoutSeconds: 10
        failureThreshold: 3
      lifecycle:
        preStop: {exec: {command: [sleep, {{ $root.Values.preStopSeconds | quote }}]}}
      volumeMounts:
        - {name: settings, mountPath: /etc/parley/settings, readOnly: true}
        - {name: tmp, mountPath: /tmp}
        - {name: cache, mountPath: /cache}
        {{- if $facts.weights }}
        - {name: weights, mountPath: /weights, readOnly: true}
        {{- end }}
        {{- if eq $service "tts" }}
        - {name: voices, mountPath: /voices}
        {{- end }}
        {{- if $values.sharedMemory }}
        - {name: shm, mountPath: /dev/shm}
        {{- end }}
        {{- if $tls }}
        - {name: tls, mountPath: /etc/parley/tls, readOnly: true}
        {{- end }}
        {{- range include "parley.secretVolumes" . | fromYamlArray }}
        - {name: {{ .name }}, mountPath: /etc/parley/{{ .name }}, readOnly: true}
        {{- end }}
  volumes:
    - {name: settings, configMap: {name: {{ $name }}}}
    - {name: tmp, emptyDir: {sizeLimit: 1Gi}}
    - {name: cache, emptyDir: {sizeLimit: {{ default "2Gi" $values.cacheSize }}}}
    {{- if $facts.weights }}
    - {name: weights, persistentVolumeClaim: {claimName: {{ include "parley.weightsClaim" $root | quote }}}}
    {{- end }}
    {{- if eq $service "tts" }}
    - {name: voices, persistentVolumeClaim: {claimName: {{ include "parley.voicesClaim" $root | quote }}}}
    {{- end }}
    {{- with $values.sharedMemory }}
    - {name: shm, emptyDir: {medium: Memory, sizeLimit: {{ . }}}}
    {{- end }}
    {{- if $tls }}
    - {name: tls, secret: {secretName: {{ include "parley.tlsSecret" . | quote }}, defaultMode: 0440}}
    {{- end }}
    {{- range include "parley.secretVolumes" . | fromYamlArray }}
    - {name: {{ .name }}, secret: {secretName: {{ .secret | quote }}, defaultMode: 0440}}
    {{- end }}
{{- end }}

{{/* Secrets that a service reads as files, mounted at /etc/parley/<name>. Takes (list $ service). */}}
{{- define "parley.secretVolumes" -}}
{{- $root := index . 0 -}}{{- $service := index . 1 -}}
{{- if eq $service "gateway" }}
{{- with $root.Values.gateway.tlsSecret }}
- {name: public-tls, secret: {{ . | quote }}}
{{- end }}
{{- with $root.Values.auth.apiKeysSecret }}
- {name: api-keys, secret: {{ . | quote }}}
{{- end }}
{{- with $root.Values.auth.jwt.publicKeySecret }}
- {name: jwt, secret: {{ . | quote }}}
{{- end }}
{{- else if eq $service "asr-context" }}
{{- if not $root.Values.redis.bundled }}
{{- with $root.Values.redis.external.caSecret }}
- {name: redis, secret: {{ . | quote }}}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
