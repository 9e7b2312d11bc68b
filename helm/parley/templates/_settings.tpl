{{/*
The settings file of a service, as PARLEY_CONFIG reads it. Takes (list $ service).
Defaults of the chart, then the user's `settings`, then what the chart must own (addresses, paths, drain).
*/}}
{{- define "parley.settings" -}}
{{- $root := index . 0 -}}{{- $service := index . 1 -}}
{{- $values := index $root.Values.services $service -}}
{{- $facts := index (include "parley.catalogue" $root | fromYaml) $service -}}
{{- $weights := include "parley.weightsRoot" $root -}}
{{- $defaults := dict "log" (dict "level" $root.Values.log.level) "telemetry" (dict "sample_ratio" $root.Values.telemetry.sampleRatio "record_content" $root.Values.telemetry.recordContent) -}}
{{- $owned := dict "host" "0.0.0.0" "port" 50051 "metrics_port" 9464 "drain_timeout_s" $root.Values.drainSeconds "log" (dict "format" "json") -}}
{{- /* Connections end on their own while the pod still waits to be told to stop: callers are gone before it drains. 0.6 leaves
       room for gRPC's jitter of a tenth and for five seconds of cached DNS. */ -}}
{{- if and $root.Values.preStopSeconds (dig "keepalive" "max_connection_age_s" nil (default dict $values.settings)) -}}
{{- fail (printf "services.%s.settings.keepalive.max_connection_age_s follows from preStopSeconds; leave it out, or set preStopSeconds to 0" $service) -}}
{{- end -}}
{{- if $root.Values.preStopSeconds -}}{{- $_ := set $owned "keepalive" (dict "max_connection_age_s" (mulf 0.6 $root.Values.preStopSeconds)) -}}{{- end -}}
{{- if $root.Values.telemetry.otlpEndpoint -}}
{{- $_ := set $owned "telemetry" (dict "otlp_endpoint" $root.Values.telemetry.otlpEndpoint) -}}
{{- end -}}
{{- if $facts.weights -}}{{- $_ := set $owned "weights" (printf "%s/%s" $weights $facts.weights) -}}{{- end -}}
{{- if eq $service "gateway" -}}
  {{- $stages := dict -}}
  {{- range $stage, $target := dict "tokenizer" "tokenizer" "chat" "chat-llm" "tts" "tts" "vocoder" "vocoder" "context" "asr-context" -}}
    {{- $_ := set $stages $stage (include "parley.client" (list $root $target) | fromYaml) -}}
  {{- end -}}
  {{- $_ := set $owned "stages" $stages -}}
  {{- if $root.Values.gateway.http.enabled -}}
    {{- $_ := set $owned "http" (dict "enabled" true "host" "0.0.0.0" "port" 8080) -}}
  {{- end -}}
  {{- if $root.Values.gateway.tlsSecret -}}
    {{- $_ := set $owned "tls" (dict "cert_file" "/etc/parley/public-tls/tls.crt" "key_file" "/etc/parley/public-tls/tls.key") -}}
  {{- end -}}
  {{- $auth := dict -}}
  {{- if $root.Values.auth.apiKeysSecret -}}{{- $_ := set $auth "api_keys_file" "/etc/parley/api-keys/keys.yaml" -}}{{- end -}}
  {{- with $root.Values.auth.jwt -}}
    {{- if .publicKeySecret -}}
      {{- $jwt := dict "public_key_file" "/etc/parley/jwt/public.pem" "algorithms" .algorithms "tenant_claim" .tenantClaim -}}
      {{- if .issuer -}}{{- $_ := set $jwt "issuer" .issuer -}}{{- end -}}
      {{- if .audience -}}{{- $_ := set $jwt "audience" .audience -}}{{- end -}}
      {{- $_ := set $auth "jwt" $jwt -}}
    {{- end -}}
  {{- end -}}
  {{- if $auth -}}{{- $_ := set $owned "auth" $auth -}}{{- end -}}
{{- else if ne $root.Values.tls.mode "none" -}}
  {{- $_ := set $owned "tls" (dict "cert_file" "/etc/parley/tls/tls.crt" "key_file" "/etc/parley/tls/tls.key" "client_ca_file" "/etc/parley/tls/ca.crt") -}}
{{- end -}}
{{- if eq $service "tts" -}}
  {{- $_ := set $owned "voice_store" "/voices" -}}
  {{- $_ := set $owned "tokenizer" (include "parley.client" (list $root "tokenizer") | fromYaml) -}}
{{- end -}}
{{- if eq $service "asr-context" -}}
  {{- $_ := set $defaults "text_tokenizer" (printf "%s/Step-Audio-Chat" $weights) -}}
  {{- if $root.Values.redis.bundled -}}{{- $_ := set $defaults "redis" (dict "require_append_only" true) -}}
  {{- else -}}
  {{- with $root.Values.redis.external.sentinel -}}
  {{- if .addresses -}}{{- $_ := set $owned "redis" (dict "sentinel" (dict "addresses" .addresses "master" .master "tls" .tls)) -}}{{- end -}}
  {{- end -}}
  {{- end -}}
{{- end -}}
{{- mergeOverwrite $defaults (deepCopy (default dict $values.settings)) $owned | toYaml -}}
{{- end }}

{{/* How one service reaches another. Takes (list $ target). */}}
{{- define "parley.client" -}}
{{- $root := index . 0 -}}
address: dns:///{{ include "parley.name" . }}:50051
{{- if ne $root.Values.tls.mode "none" }}
tls:
  ca_file: /etc/parley/tls/ca.crt
  cert_file: /etc/parley/tls/tls.crt
  key_file: /etc/parley/tls/tls.key
{{- end }}
{{- end }}
