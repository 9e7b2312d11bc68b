{{/*
What the chart knows of each service; everything per service is rendered by walking this table.
  package   Python package, run as python -m
  grpc      full name of its gRPC service
  weights   folder below the weights' root; empty: it needs none
  callers   who calls it; network policies follow from this
  engine    label of its parley_engine_* metrics
*/}}
{{- define "parley.catalogue" -}}
gateway: {package: parley_gateway, grpc: parley.conversation.v1.ConversationService, weights: "", callers: [], engine: ""}
tokenizer: {package: parley_tokenizer, grpc: parley.tokenizer.v1.TokenizerService, weights: Step-Audio-Tokenizer, callers: [gateway, tts], engine: tokenizer}
chat-llm: {package: parley_chat_llm, grpc: parley.chat.v1.ChatService, weights: Step-Audio-Chat, callers: [gateway], engine: chat-llm}
tts: {package: parley_tts, grpc: parley.tts.v1.TtsService, weights: Step-Audio-TTS-3B, callers: [gateway], engine: tts}
vocoder: {package: parley_vocoder, grpc: parley.vocoder.v1.VocoderService, weights: Step-Audio-TTS-3B, callers: [gateway], engine: vocoder}
asr-context: {package: parley_asr_context, grpc: parley.context.v1.ContextService, weights: Step-Audio-Tokenizer, callers: [gateway], engine: transcription}
{{- end }}
