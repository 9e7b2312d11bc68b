{{/* Names and labels. */}}
{{- define "parley.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 38 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}{{- .Release.Name | trunc 38 | trimSuffix "-" -}}
{{- else -}}{{- printf "%s-%s" .Release.Name $name | trunc 38 | trimSuffix "-" -}}{{- end -}}
{{- end -}}
{{- end }}

{{/* Name of a part's objects. Takes (list $ part). */}}
{{- define "parley.name" -}}
{{- printf "%s-%s" (include "parley.fullname" (index . 0)) (index . 1) -}}
{{- end }}

{{/* Labels that select a part's pods. Takes (list $ part). */}}
{{- define "parley.selector" -}}
app.kubernetes.io/name: parley
app.kubernetes.io/instance: {{ (index . 0).Release.Name | quote }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{/* All labels of a part's objects. Takes (list $ part). */}}
{{- define "parley.labels" -}}
{{- $root := index . 0 -}}
{{ include "parley.selector" . }}
app.kubernetes.io/part-of: parley
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version }}
{{- end }}

{{/* Image of a part. Takes (list $ part override), override being {repository, tag, variant}. */}}
{{- define "parley.image" -}}
{{- $root := index . 0 -}}{{- $part := index . 1 -}}{{- $over := default dict (index . 2) -}}
{{- $image := $root.Values.image -}}
{{- $repository := printf "%s-%s" $image.prefix $part -}}
{{- if $image.registry -}}{{- $repository = printf "%s/%s" (trimSuffix "/" $image.registry) $repository -}}{{- end -}}
{{- $tag := default (default $root.Chart.AppVersion $image.tag) $over.tag -}}
{{- printf "%s:%s%s" (default $repository $over.repository) $tag (default "" $over.variant) -}}
{{- end }}

{{/* Secret with the certificate of a service. Takes (list $ service). */}}
{{- define "parley.tlsSecret" -}}
{{- $root := index . 0 -}}{{- $service := index . 1 -}}
{{- $own := printf "%s-tls" (include "parley.name" .) -}}
{{- if eq $root.Values.tls.mode "secrets" -}}{{- default $own (index $root.Values.tls.secretNames $service) -}}{{- else -}}{{- $own -}}{{- end -}}
{{- end }}

{{- define "parley.weightsClaim" -}}
{{- default (printf "%s-weights" (include "parley.fullname" .)) .Values.weights.existingClaim -}}
{{- end }}
{{- define "parley.voicesClaim" -}}
{{- default (printf "%s-voices" (include "parley.fullname" .)) .Values.voices.existingClaim -}}
{{- end }}
{{- define "parley.weightsRoot" -}}
{{- if .Values.weights.folder -}}/weights/{{ .Values.weights.folder }}{{- else -}}/weights{{- end -}}
{{- end }}
{{- define "parley.redisSecret" -}}
{{- default (printf "%s-redis" (include "parley.fullname" .)) .Values.redis.existingSecret -}}
{{- end }}
{{/* Port of an address such as https://host:port/path. Takes (list address port-when-it-names-none). */}}
{{- define "parley.port" -}}
{{- $address := index . 0 -}}
{{- $host := (urlParse (ternary $address (printf "//%s" $address) (contains "://" $address))).host -}}
{{- regexFind ":[0-9]+$" $host | trimPrefix ":" | default (index . 1) -}}
{{- end }}
{{/* Priority class of a part's pods. Takes (list $ part). */}}
{{- define "parley.priorityClass" -}}
{{- $values := (index . 0).Values.priorityClass -}}
{{- if $values.create -}}
{{- include "parley.name" (list (index . 0) (ternary "front" "stage" (has (index . 1) (list "gateway" "asr-context" "redis")))) -}}
{{- else -}}{{- $values.name -}}{{- end -}}
{{- end }}
