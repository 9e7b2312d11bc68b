{{/* Names and labels. */}}
{{/* A release may be called a.b, a Service may not. */}}
{{- define "parley.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 38 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- $release := .Release.Name | replace "." "-" -}}
{{- if contains $name $release -}}{{- $release | trunc 38 | trimSuffix "-" -}}
{{- else -}}{{- printf "%s-%s" $release $name | trunc 38 | trimSuffix "-" -}}{{- end -}}
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
{{/* Bytes of an amount as Kubernetes (512Mi) or Redis (512mb) writes it. */}}
{{- define "parley.bytes" -}}
{{- $amount := ternary (printf "%.0f" (float64 .)) . (kindIs "float64" .) -}}
{{- $units := dict "" 1 "m" 0.001 "k" 1e3 "Ki" 1024 "M" 1e6 "Mi" 1048576 "G" 1e9 "Gi" 1073741824 "T" 1e12 "Ti" 1099511627776 "kb" 1024 "mb" 1048576 "gb" 1073741824 -}}
{{- mulf (regexFind "^[0-9.]+" $amount | float64) (index $units (regexFind "[a-zA-Z]*$" $amount)) | printf "%.0f" -}}
{{- end }}
{{/* Priority class of a part's pods. Takes (list $ part). */}}
{{- define "parley.priorityClass" -}}
{{- $values := (index . 0).Values.priorityClass -}}
{{- if $values.create -}}
{{- include "parley.name" (list (index . 0) (ternary "front" "stage" (has (index . 1) (list "gateway" "asr-context" "redis")))) -}}
{{- else -}}{{- default "" $values.name -}}{{- end -}}
{{- end }}
