{{- define "keepset.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* Not longer than a CronJob's name may be. */}}
{{- define "keepset.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else if contains (include "keepset.name" .) .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "keepset.name" .) | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* What belongs to no namespace has this one's in its name. */}}
{{- define "keepset.clusterName" -}}
{{- printf "%s-%s" .Release.Namespace (include "keepset.fullname" .) -}}
{{- end -}}

{{- define "keepset.selectorLabels" -}}
app.kubernetes.io/name: {{ include "keepset.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "keepset.labels" -}}
{{ include "keepset.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/component: agent
app.kubernetes.io/part-of: keepset
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "keepset.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "keepset.fullname" .) .Values.serviceAccount.name -}}
{{- else if .Values.serviceAccount.name -}}
{{- .Values.serviceAccount.name -}}
{{- else -}}
{{- fail "serviceAccount.create is false: say which account there is, by serviceAccount.name" -}}
{{- end -}}
{{- end -}}

{{- define "keepset.image" -}}
{{- if not .Values.image.repository -}}
{{- fail "image.repository is empty: build the image by deploy/Containerfile, push it to your registry, and say --set image.repository=registry.example.com/keepset" -}}
{{- end -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{/* The settings file: what the values say, and what the chart knows better than it can be said twice. */}}
{{- define "keepset.settings" -}}
{{- $settings := deepCopy .Values.settings -}}
{{- if not $settings.cluster -}}
{{- fail "settings.cluster is empty: name this cluster, by --set settings.cluster=prod-eu1; the name is part of each point's identity, and two clusters must not have the same" -}}
{{- end -}}
{{- $kubernetes := default dict $settings.kubernetes -}}
{{- if $kubernetes.image -}}
{{- fail "settings.kubernetes.image: movers run the agent's own image, which `image` names" -}}
{{- end -}}
{{- $known := dict "secret" .Values.existingSecret "imagePullPolicy" .Values.image.pullPolicy -}}
{{- if .Values.imagePullSecrets -}}
{{- $_ := set $known "imagePullSecrets" .Values.imagePullSecrets -}}
{{- end -}}
{{- if .Values.priorityClassName -}}
{{- $_ := set $known "priorityClassName" .Values.priorityClassName -}}
{{- end -}}
{{- $_ := set $settings "kubernetes" (merge $kubernetes $known) -}}
{{- if eq .Values.mode "agent" -}}
{{- $agent := default dict $settings.agent -}}
{{- $_ := set $settings "agent" (merge $agent (dict "listen" "0.0.0.0:8080")) -}}
{{- end -}}
{{- toYaml $settings -}}
{{- end -}}

{{- define "keepset.port" -}}
{{- $agent := default dict .Values.settings.agent -}}
{{- default "0.0.0.0:8080" $agent.listen | toString | regexFind "[0-9]+$" -}}
{{- end -}}

{{/* As JSON: each namespace that has sets, or is given scratch claims by a drill. */}}
{{- define "keepset.namespaces" -}}
{{- $settings := .Values.settings -}}
{{- $agent := default dict $settings.agent -}}
{{- $found := default (list .Release.Namespace) $agent.namespaces -}}
{{- $defaults := default dict $settings.defaults -}}
{{- range prepend (default list $settings.sets) $defaults -}}
{{- $match := default dict .match -}}
{{- $drill := default dict .drill -}}
{{- if $match.namespace -}}{{- $found = append $found $match.namespace -}}{{- end -}}
{{- if $drill.namespace -}}{{- $found = append $found $drill.namespace -}}{{- end -}}
{{- end -}}
{{- if and (has "*" $found) (not .Values.rbac.clusterWide) .Values.rbac.create -}}
{{- fail "settings.agent.namespaces has \"*\", all namespaces, which rights of single ones do not reach: list them, or say --set rbac.clusterWide=true" -}}
{{- end -}}
{{- $found | uniq | sortAlpha | toJson -}}
{{- end -}}

{{/* The rules of deploy/rbac.yaml, word for word, and the one that only an agent needs. */}}
{{- define "keepset.rules" -}}
{{- $role := "" -}}
{{- range splitList "\n---\n" (.Files.Get "files/rbac.yaml") -}}
{{- if contains "\nkind: Role\n" . -}}{{- $role = . -}}{{- end -}}
{{- end -}}
{{ last (splitList "\nrules:\n" $role) | trim }}
# Which sets there are, and what their annotations say of schedules.
- apiGroups: [apps]
  resources: [statefulsets]
  verbs: [list, watch]
{{- end -}}

{{/* The pod, of the Deployment and of the CronJob. */}}
{{- define "keepset.podMetadata" -}}
labels:
  {{- include "keepset.labels" . | nindent 2 }}
  {{- with .Values.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .Values.podAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "keepset.podSpec" -}}
serviceAccountName: {{ include "keepset.serviceAccountName" . }}
automountServiceAccountToken: true
enableServiceLinks: false
terminationGracePeriodSeconds: {{ .Values.terminationGracePeriodSeconds }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
securityContext:
  {{- toYaml .Values.podSecurityContext | nindent 2 }}
containers:
  - name: keepset
    image: {{ include "keepset.image" . | quote }}
    imagePullPolicy: {{ .Values.image.pullPolicy }}
    args:
      - agent
      {{- if eq .Values.mode "cronjob" }}
      - --once
      {{- end }}
      # Sooner than the kubelet kills, so that what is running ends cleanly.
      - --grace={{ sub (int .Values.terminationGracePeriodSeconds) 20 }}s
    env:
      # Movers run the same.
      - name: KEEPSET_IMAGE
        value: {{ include "keepset.image" . | quote }}
      - name: KEEPSET_NAMESPACE
        valueFrom: { fieldRef: { fieldPath: metadata.namespace } }
      {{- with .Values.extraEnv }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
    envFrom:
      - secretRef: { name: {{ .Values.existingSecret }} }
    {{- if eq .Values.mode "agent" }}
    ports:
      - name: metrics
        containerPort: {{ include "keepset.port" . }}
    livenessProbe:
      httpGet: { path: /livez, port: metrics }
      periodSeconds: 20
      timeoutSeconds: 5
    readinessProbe:
      httpGet: { path: /readyz, port: metrics }
      periodSeconds: 5
      timeoutSeconds: 5
    {{- end }}
    resources:
      {{- toYaml .Values.resources | nindent 6 }}
    securityContext:
      {{- toYaml .Values.securityContext | nindent 6 }}
    terminationMessagePolicy: FallbackToLogsOnError
    volumeMounts:
      # A folder, not a file of it: only so does a change of the settings arrive.
      - name: settings
        mountPath: /etc/keepset
        readOnly: true
      - name: scratch
        mountPath: /tmp
      # What a store wants a path of can be in the Secret as well, as movers have it.
      - name: keepset-secret
        mountPath: /run/keepset/secret
        readOnly: true
      {{- with .Values.extraVolumeMounts }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
volumes:
  - name: settings
    configMap: { name: {{ include "keepset.fullname" . }} }
  - name: scratch
    emptyDir: {}
  - name: keepset-secret
    # That there is none its use as environment tells better: a volume would be waited for.
    secret: { secretName: {{ .Values.existingSecret }}, optional: true, defaultMode: 0444 }
  {{- with .Values.extraVolumes }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if .Values.affinity }}
affinity:
  {{- toYaml .Values.affinity | nindent 2 }}
{{- else if and (eq .Values.mode "agent") (gt (int .Values.replicas) 1) }}
affinity:
  podAntiAffinity:
    preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 100
        podAffinityTerm:
          topologyKey: kubernetes.io/hostname
          labelSelector:
            matchLabels:
              {{- include "keepset.selectorLabels" . | nindent 14 }}
{{- end }}
{{- end -}}
