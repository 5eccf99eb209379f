#include "tests/engine/engine_support.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "base/check.h"
#include "base/error.h"
#include "engine/ggml_log.h"
#include "engine/sampler.h"

#include <fmt/format.h>
#include <ggml-cpp.h>
#include <llama.h>
#include <nlohmann/json.hpp>

namespace kvasir::engine::testing {

void Die(const absl::Status& status) {
  fmt::print(stderr, "unexpected error: {}\n", MessageOf(status));
  std::abort();
}

std::vector<uint32_t> Prose(size_t tokens) {
  std::ifstream in(kTinyFixture);
  const nlohmann::json fixture = nlohmann::json::parse(in);
  std::vector<uint32_t> ids;
  for (const auto& part : fixture["policy_checks"]) {
    const auto more = part["ids"].get<std::vector<uint32_t>>();
    ids.insert(ids.end(), more.begin(), more.end());
  }
  KVASIR_CHECK(ids.size() >= tokens, "the fixture has {} tokens of {}", ids.size(), tokens);
  ids.resize(tokens);
  return ids;
}

std::unique_ptr<PrivateKvStore> MakePrivateStore(const GgufModel& model, kernels::RowType type,
                                                 uint32_t slots_per_block) {
  const HyperParameters& p = model.parameters();
  return ValueOrDie(PrivateKvStore::Create(GeometryOf(p, type, slots_per_block), p.context));
}

std::vector<float> ComputeAll(LlamaEngine& engine, KvStore& store, std::span<const uint32_t> tokens,
                              uint32_t batch, FarBlocks* far) {
  FarBlocks own(store, engine.model().parameters().layers);
  std::vector<float> all;
  while (!tokens.empty()) {
    const auto want = static_cast<uint32_t>(std::min<size_t>(batch, tokens.size()));
    const StepView step = ValueOrDie(store.Begin(want));
    const auto rows = tokens.first(step.count);
    const auto logits =
        ValueOrDie(engine.Compute(rows, step, LogitsWanted::kAll, far == nullptr ? &own : far));
    all.insert(all.end(), logits.begin(), logits.end());
    if (const absl::Status status = store.Commit(rows); !status.ok()) Die(status);
    tokens = tokens.subspan(step.count);
  }
  return all;
}

void WriteF32Copy(const std::string& from, const std::string& to) {
  QuietLibraries();
  ggml_context* stored = nullptr;
  const gguf_context_ptr in(
      gguf_init_from_file(from.c_str(), gguf_init_params{.no_alloc = false, .ctx = &stored}));
  const ggml_context_ptr stored_owner(stored);
  KVASIR_CHECK(in != nullptr, "cannot read {}", from);
  size_t bytes = 0;
  for (ggml_tensor* t = ggml_get_first_tensor(stored); t; t = ggml_get_next_tensor(stored, t)) {
    bytes += static_cast<size_t>(ggml_nelements(t)) * sizeof(float) + ggml_tensor_overhead() + 64;
  }
  const ggml_context_ptr expanded(
      ggml_init({.mem_size = bytes, .mem_buffer = nullptr, .no_alloc = false}));
  const gguf_context_ptr out(gguf_init_empty());
  gguf_set_kv(out.get(), in.get());
  for (int64_t i = 0; i < gguf_get_n_tensors(in.get()); ++i) {
    const char* name = gguf_get_tensor_name(in.get(), i);
    const ggml_tensor* t = ggml_get_tensor(stored, name);
    ggml_tensor* wide = ggml_new_tensor(expanded.get(), GGML_TYPE_F32, ggml_n_dims(t), t->ne);
    ggml_set_name(wide, name);
    if (t->type == GGML_TYPE_F32) {
      std::memcpy(wide->data, t->data, ggml_nbytes(t));
    } else {
      ggml_get_type_traits(t->type)->to_float(t->data, ggml_get_data_f32(wide), ggml_nelements(t));
    }
    gguf_add_tensor(out.get(), wide);
  }
  KVASIR_CHECK(gguf_write_to_file(out.get(), to.c_str(), false), "cannot write {}", to);
}

void Difference::Add(std::span<const float> a, std::span<const float> b, size_t vocabulary) {
  KVASIR_CHECK(a.size() == b.size() && !a.empty(), "sizes {} and {}", a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    const double gap = std::fabs(static_cast<double>(a[i]) - static_cast<double>(b[i]));
    logit = std::isnan(gap) ? HUGE_VAL : std::max(logit, gap);
  }
  for (size_t row = 0; row < a.size() / vocabulary; ++row) {
    argmax_changes += ArgMax(a.subspan(row * vocabulary, vocabulary)) !=
                              ArgMax(b.subspan(row * vocabulary, vocabulary))
                          ? 1
                          : 0;
  }
}

LlamaReference::LlamaReference(const std::string& path, kernels::RowType type, uint32_t context) {
  QuietLibraries();
  llama_model_params model_params = llama_model_default_params();
  model_params.n_gpu_layers = 0;
  model_ = llama_model_load_from_file(path.c_str(), model_params);
  KVASIR_CHECK(model_ != nullptr, "libllama cannot load {}", path);
  llama_context_params params = llama_context_default_params();
  params.n_ctx = context;
  params.n_batch = params.n_ubatch = 512;
  params.n_seq_max = 1;
  params.n_threads = params.n_threads_batch = 1;
  params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
  params.type_k = params.type_v = type == kernels::RowType::kF32 ? GGML_TYPE_F32 : GGML_TYPE_F16;
  params.no_perf = true;
  context_ = llama_init_from_model(model_, params);
  KVASIR_CHECK(context_ != nullptr, "libllama cannot make a context for {}", path);
  vocabulary_ = static_cast<size_t>(llama_vocab_n_tokens(llama_model_get_vocab(model_)));
}

LlamaReference::~LlamaReference() {
  llama_free(context_);
  llama_model_free(model_);
}

std::vector<float> LlamaReference::Compute(std::span<const uint32_t> tokens) {
  const auto count = static_cast<int32_t>(tokens.size());
  llama_batch batch = llama_batch_init(count, 0, 1);
  batch.n_tokens = count;
  for (int32_t i = 0; i < count; ++i) {
    batch.token[i] = static_cast<llama_token>(tokens[static_cast<size_t>(i)]);
    batch.pos[i] = row_ + i;
    batch.n_seq_id[i] = 1;
    batch.seq_id[i][0] = 0;
    batch.logits[i] = 1;
  }
  KVASIR_CHECK(llama_decode(context_, batch) == 0, "libllama cannot compute {} tokens", count);
  std::vector<float> all;
  for (int32_t i = 0; i < count; ++i) {
    const float* logits = llama_get_logits_ith(context_, i);
    all.insert(all.end(), logits, logits + vocabulary_);
  }
  llama_batch_free(batch);
  row_ += count;
  return all;
}

void LlamaReference::Remove(uint64_t row) {
  const auto position = static_cast<llama_pos>(row);
  const bool removed = llama_memory_seq_rm(llama_get_memory(context_), 0, position, position + 1);
  KVASIR_CHECK(removed, "libllama cannot remove row {}", row);
}

Difference CompareWithLibllama(LlamaEngine& engine, KvStore& store, LlamaReference& reference,
                               std::span<const uint32_t> prompt, uint32_t steps) {
  constexpr size_t kRowsAtOnce = 256;  // a row of logits may take 200 KiB, twice
  const size_t vocabulary = engine.model().parameters().vocabulary;
  Difference difference;
  std::vector<float> ours;
  for (size_t at = 0; at < prompt.size(); at += kRowsAtOnce) {
    const auto part = prompt.subspan(at, std::min(kRowsAtOnce, prompt.size() - at));
    ours = ComputeAll(engine, store, part, kRowsAtOnce);
    difference.Add(ours, reference.Compute(part), vocabulary);
  }
  for (uint32_t i = 0; i < steps; ++i) {
    const uint32_t next = ArgMax(std::span(ours).last(vocabulary));
    ours = ComputeAll(engine, store, std::span(&next, 1), 1);
    difference.Add(ours, reference.Compute(std::span(&next, 1)), vocabulary);
  }
  return difference;
}

std::optional<std::string> SmolLmPath() {
  const char* named = std::getenv("KVASIR_MODEL");
  const char* home = std::getenv("HOME");
  const std::string path =
      named != nullptr
          ? named
          : std::string(home != nullptr ? home : "") +
                "/.cache/kvasir/model-b179c9523d0e6a0f/SmolLM2-135M-Instruct.Q4_1.gguf";
  if (!std::filesystem::exists(path)) return std::nullopt;
  return path;
}

}  // namespace kvasir::engine::testing
