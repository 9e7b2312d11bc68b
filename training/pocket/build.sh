#!/usr/bin/env bash
# All pocket weights, in order: corpus, tokenizers, recogniser, decoder, language models.
# Every step goes on from its state file in WORK; one torch thread each, so that two can run at once.
# usage: build.sh [WORK] [WEIGHTS]
set -euo pipefail
command -v flite >/dev/null || { echo "pocket-weights: it needs flite, which speaks the corpus (Debian: apt install flite)" >&2; exit 3; }
here=$(cd "$(dirname "$0")" && pwd)
work=${1:-/tmp/pocket} weights=${2:-$here/../../weights/pocket}
mkdir -p "$work" "$weights"
work=$(realpath "$work") weights=$(realpath "$weights")
python=$here/../../.venv/bin/python
export OMP_NUM_THREADS=1
cd "$here"
$python -m pip install --quiet --disable-pip-version-check --constraint ../../requirements/constraints.txt \
    --requirement requirements.txt

corpus=$work/corpus tokenizer=$weights/Step-Audio-Tokenizer chat=$weights/Step-Audio-Chat
tts=$weights/Step-Audio-TTS-3B
decoder=$tts/CosyVoice-300M-25Hz
mkdir -p "$decoder" && cp cosyvoice.yaml "$decoder/"

$python corpus.py --out "$corpus" --size 9000 --seed 1
if [[ ! -f $tokenizer/speech_tokenizer_v1.onnx ]]; then
    # Frozen once written: everything below depends on these bytes.
    $python linguistic.py --corpus "$corpus" --out "$work" &
    $python semantic.py --corpus "$corpus" --out "$work" && wait $!
    $python export_tokenizer.py --corpus "$corpus" --work "$work" --out "$tokenizer"
fi
$python speaker.py --corpus "$corpus" --work "$work" --out "$decoder/campplus.onnx"
$python recogniser.py --corpus "$corpus" --tokenizer "$tokenizer" --work "$work"
# Answers alone, more of them: what the TTS model learns from beside the mixed corpus.
answers=$work/answers
$python corpus.py --out "$answers" --size 6000 --seed 2 --answers 1
salads=$work/salads
$python corpus.py --out "$salads" --size 8000 --seed 3 --answers 1 --salads
# Questions alone, more of them: what the chat model hears beside the mixed corpus.
questions=$work/questions
$python corpus.py --out "$questions/corpus" --size 11000 --seed 11 --answers 0
[[ -f $questions/tokens.npz ]] || $python tokenise.py --corpus "$questions/corpus" \
    --tokenizer "$tokenizer" --out "$questions/tokens.npz"
# And of the kinds that take longest to learn to hear.
slow=$work/slow
$python corpus.py --out "$slow/corpus" --size 4000 --seed 31 --answers 0 \
    --only calendar opposite weather clock pirate capital
[[ -f $slow/tokens.npz ]] || $python tokenise.py --corpus "$slow/corpus" \
    --tokenizer "$tokenizer" --out "$slow/tokens.npz"
# And about words that are taken for each other.
alike=$work/alike
$python corpus.py --out "$alike/corpus" --size 5000 --seed 61 --answers 0 --mentioning london lisbon dublin \
    stockholm madrid september august december november october loud low slow long dry right big left light fast bad
[[ -f $alike/tokens.npz ]] || $python tokenise.py --corpus "$alike/corpus" \
    --tokenizer "$tokenizer" --out "$alike/tokens.npz"
# And about what was said before.
before=$work/before
$python corpus.py --out "$before/corpus" --size 6000 --seed 83 --answers 0 --only recall restyled pirate
[[ -f $before/tokens.npz ]] || $python tokenise.py --corpus "$before/corpus" \
    --tokenizer "$tokenizer" --out "$before/tokens.npz"
# And of what came last in hearing, once more.
last=$work/last
$python corpus.py --out "$last/corpus" --size 6000 --seed 121 --answers 0 \
    --only weather clock opposite calendar add subtract follow_up
[[ -f $last/tokens.npz ]] || $python tokenise.py --corpus "$last/corpus" \
    --tokenizer "$tokenizer" --out "$last/tokens.npz"
# Answers in which the TTS model loses words or letters.
lost=$work/lost
$python corpus.py --out "$lost/corpus" --size 3000 --seed 106 --answers 1 --only pirate recall spell
[[ -f $lost/tokens.npz ]] || $python tokenise.py --corpus "$lost/corpus" \
    --tokenizer "$tokenizer" --out "$lost/tokens.npz"
[[ -f $work/tokens.npz ]] || $python tokenise.py --corpus "$corpus" --tokenizer "$tokenizer" \
    --out "$work/tokens.npz"
[[ -f $work/answer_tokens.npz ]] || $python tokenise.py --corpus "$answers" \
    --tokenizer "$tokenizer" --out "$work/answer_tokens.npz"
[[ -f $work/salad_tokens.npz ]] || $python tokenise.py --corpus "$salads" \
    --tokenizer "$tokenizer" --out "$work/salad_tokens.npz"

{
    $python hift.py --corpus "$corpus" --work "$work" --tokenizer "$tokenizer" --steps 4500 \
        --pitch-steps 1500 --out "$decoder/hift.pt"
    $python flow.py --corpus "$corpus" --answers "$answers" --salads "$salads" --work "$work" --speaker-model "$decoder/campplus.onnx" \
        --steps 9000 --out "$decoder/flow.pt"
} &
$python chat.py text --work "$work"
$python chat.py audio --corpus "$corpus" --more "$questions" "$slow" --work "$work" --out "$work/chat"
# Two points near each other, one of all questions and one of small steps on the hard ones: their mean is better.
for point in all hard; do
    mkdir -p "$work/chat-$point"
    cp "$work/tokenizer.model" "$work/chat-$point/"
done
ln -sf "$work/tokens.npz" "$work/chat-all/tokens.npz"
ln -sf "$slow/tokens.npz" "$work/chat-hard/tokens.npz"
$python chat.py audio --corpus "$corpus" --more "$questions" "$slow" "$alike" --work "$work/chat-all" --begin "$work/chat" \
    --steps 440 --out "$work/chat-all/out"
$python chat.py audio --corpus "$slow/corpus" --more "$alike" --work "$work/chat-hard" --begin "$work/chat" --rate 6e-4 \
    --steps 440 --out "$work/chat-hard/out"
$python average.py --out "$work/chat-both" "$work/chat-all/out" "$work/chat-hard/out"
# Two more, one on from the other, which have heard what was said before.
begin=$work/chat-both
for point in recalled again; do
    mkdir -p "$work/chat-$point"
    cp "$work/tokenizer.model" "$work/chat-$point/"
    ln -sf "$before/tokens.npz" "$work/chat-$point/tokens.npz"
    $python chat.py audio --corpus "$before/corpus" --more "$questions" "$alike" --work "$work/chat-$point" \
        --begin "$begin" --rate 7e-4 --steps 400 --out "$work/chat-$point/out"
    begin=$work/chat-$point/out
done
$python average.py --out "$work/chat-told" "$work/chat-recalled/out" "$work/chat-again/out"
# And one more, on from their mean.
mkdir -p "$work/chat-last"
cp "$work/tokenizer.model" "$work/chat-last/"
ln -sf "$last/tokens.npz" "$work/chat-last/tokens.npz"
$python chat.py audio --corpus "$last/corpus" --more "$questions" --work "$work/chat-last" \
    --begin "$work/chat-told" --rate 6e-4 --steps 260 --out "$work/chat-last/out"
$python average.py --out "$chat" "$work/chat-told" "$work/chat-last/out"
$python tts.py --corpus "$corpus" --answers "$answers" --salads "$salads" --more "$lost" --tokenizer "$tokenizer" \
    --work "$work" --steps 4800 --out "$tts"
wait $!
# The flow goes on with what the TTS model makes of answers, some that it has not heard: there it errs as in serving.
# Then with those that are taken for others; the mean of both points has lost nothing of the first.
unheard=$work/unheard hard=$work/hard
$python corpus.py --out "$unheard/corpus" --size 6000 --seed 104 --answers 1
$python corpus.py --out "$hard/corpus" --size 4000 --seed 131 --answers 1 \
    --only opposite opposite spell styled restyled restyled capital colour recall
begin=$decoder/flow.pt
for answers_of in "$unheard" "$hard"; do
    [[ -f $answers_of/answer_tokens.npz ]] || $python tokenise.py --corpus "$answers_of/corpus" \
        --tokenizer "$tokenizer" --out "$answers_of/answer_tokens.npz"
    for tokens in tokens salad_tokens; do
        ln -sf "$work/$tokens.npz" "$answers_of/$tokens.npz"
    done
    $python flow.py --corpus "$corpus" --answers "$answers_of/corpus" --salads "$salads" --work "$answers_of" \
        --speaker-model "$decoder/campplus.onnx" --begin "$begin" --tts "$tts" --tokenizer "$tokenizer" \
        --rate 8e-4 --steps 2400 --out "$answers_of/flow.pt"
    begin=$answers_of/flow.pt
done
$python average.py --out "$decoder/flow.pt" "$unheard/flow.pt" "$hard/flow.pt"
# The vocoder, with half of the mels as that flow makes them.
mkdir -p "$work/heard"
ln -sf "$work/tokens.npz" "$work/heard/tokens.npz"
$python hift.py --corpus "$corpus" --work "$work/heard" --tokenizer "$tokenizer" --begin "$decoder/hift.pt" \
    --flow "$decoder" --answers 1600 --questions 600 --rate 1e-3 --steps 2400 --pitch-steps 1200 --out "$decoder/hift.pt"
# The recogniser hears the system's own voice, too, and last of all what is no speech.
own=$work/own
[[ -f $own/utterances.json ]] || $python own_voice.py --answers "$unheard/corpus" --tts "$tts" --tokenizer "$tokenizer" \
    --decoder "$decoder" --count 800 --out "$own"
vocoded=()
for each in answers:1300 salads:700; do
    name=${each%:*} made=$work/vocoded-${each%:*}
    [[ -f $made/utterances.json ]] || $python vocoded.py --answers "$work/$name" --tokens "$work/${name%s}_tokens.npz" \
        --tokenizer "$tokenizer" --decoder "$decoder" --count "${each#*:}" --out "$made"
    vocoded+=("$made" "$own")
done
$python recogniser.py --corpus "$corpus" --tokenizer "$tokenizer" --work "$work" --vocoded "${vocoded[@]}" --steps 4000
$python nonspeech.py --corpus "$corpus" --tokenizer "$tokenizer" --work "$work" --vocoded "${vocoded[@]}"
$python manifest.py "$weights"
