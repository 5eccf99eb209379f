// Loading: a good file, and many bad ones. Bad ones must give an error that names what is wrong;
// none may end the process, in the loader or in libllama's vocabulary loader behind it.
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include <gmock/gmock.h>

#include "base/error.h"
#include "engine/tokenizer.h"
#include "tests/engine/engine_support.h"

#include <ggml-cpp.h>

namespace kvasir::engine::testing {
namespace {

using ::testing::HasSubstr;

// Bytes of everything before the tensors' data in the tiny model.
constexpr size_t kHeaderBytes = 46112;

std::string ReadBytes(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

class GgufModelTest : public ::testing::Test {
 protected:
  void TearDown() override { std::filesystem::remove(path_); }

  void Write(const std::string& bytes) const {
    std::ofstream(path_, std::ios::binary | std::ios::trunc) << bytes;
  }

  // Status of loading `bytes` as a model.
  absl::Status Load(const std::string& bytes) const {
    Write(bytes);
    return GgufModel::Load(path_, WeightsMode::kAsStored).status();
  }

  // Status of loading a copy of the tiny model whose keys `edit` has changed.
  absl::Status LoadEdited(const std::function<void(gguf_context*)>& edit) const {
    return LoadCopy("", "", GGML_TYPE_F32, {}, edit);
  }

  void ExpectEditError(const std::function<void(gguf_context*)>& edit,
                       const std::string& text) const {
    const absl::Status status = LoadEdited(edit);
    EXPECT_FALSE(status.ok()) << text;
    EXPECT_THAT(MessageOf(status), HasSubstr(text));
  }

  // A copy of the tiny model without tensor `dropped`; `added` takes its place if it has
  // dimensions.
  absl::Status LoadCopy(const std::string& dropped, const std::string& added, ggml_type type,
                        const std::vector<int64_t>& shape,
                        const std::function<void(gguf_context*)>& edit) const {
    ggml_context* tensors = nullptr;
    const gguf_context_ptr in(
        gguf_init_from_file(kTinyModel, gguf_init_params{.no_alloc = false, .ctx = &tensors}));
    const ggml_context_ptr owner(tensors);
    const ggml_context_ptr extra(
        ggml_init({.mem_size = 16 << 20, .mem_buffer = nullptr, .no_alloc = false}));
    const gguf_context_ptr out(gguf_init_empty());
    gguf_set_kv(out.get(), in.get());
    for (int64_t i = 0; i < gguf_get_n_tensors(in.get()); ++i) {
      const char* name = gguf_get_tensor_name(in.get(), i);
      if (name != dropped) gguf_add_tensor(out.get(), ggml_get_tensor(tensors, name));
    }
    if (!shape.empty()) {
      ggml_tensor* tensor =
          ggml_new_tensor(extra.get(), type, static_cast<int>(shape.size()), shape.data());
      std::memset(tensor->data, 0, ggml_nbytes(tensor));
      ggml_set_name(tensor, added.c_str());
      gguf_add_tensor(out.get(), tensor);
    }
    edit(out.get());
    gguf_write_to_file(out.get(), path_.c_str(), false);
    return GgufModel::Load(path_, WeightsMode::kAsStored).status();
  }

  const std::string path_ =
      ::testing::TempDir() + "kvasir_model_" + std::to_string(::getpid()) + ".gguf";
  const std::string good_ = ReadBytes(kTinyModel);
};

TEST_F(GgufModelTest, ReadsTheTinyModel) {
  const GgufModel model = ValueOrDie(GgufModel::Load(kTinyModel, WeightsMode::kAsStored));
  const HyperParameters& p = model.parameters();
  EXPECT_EQ(p.layers, 4U);
  EXPECT_EQ(p.embedding, 256U);
  EXPECT_EQ(p.heads, 4U);
  EXPECT_EQ(p.kv_heads, 2U);
  EXPECT_EQ(p.head_dim, 64U);
  EXPECT_EQ(p.rotated_dims, 64U);
  EXPECT_EQ(p.vocabulary, 1536U);
  EXPECT_EQ(p.context, 2048U);
  EXPECT_EQ(p.rope_theta, 10000.0);
  EXPECT_EQ(model.output(), model.token_embedding());  // tied
}

TEST_F(GgufModelTest, WeightsAreUsedInPlace) {
  const GgufModel model = ValueOrDie(GgufModel::Load(kTinyModel, WeightsMode::kAsStored));
  const auto* weight = static_cast<const std::byte*>(model.layers()[3].ffn_down->data);
  EXPECT_GE(weight, model.file().data());
  EXPECT_LT(weight, model.file().data() + model.file().bytes());
}

TEST_F(GgufModelTest, MissingFileFolderAndText) {
  EXPECT_EQ(GgufModel::Load("/nonexistent.gguf", WeightsMode::kAsStored).status().code(),
            absl::StatusCode::kNotFound);
  EXPECT_THAT(MessageOf(GgufModel::Load("/tmp", WeightsMode::kAsStored).status()),
              HasSubstr("regular file"));
  EXPECT_THAT(MessageOf(Load("")), HasSubstr("too short"));
  EXPECT_THAT(MessageOf(Load(std::string(4096, 'x'))), HasSubstr("not a GGUF file"));
}

TEST_F(GgufModelTest, CutFilesAreErrors) {
  std::vector<size_t> cuts = {1, 4, 8, 23, 24, 100, good_.size() - 1, good_.size() / 2};
  for (size_t at = 32; at < good_.size(); at = at * 5 / 4 + 7) cuts.push_back(at);
  for (const size_t at : cuts) {
    const absl::Status status = Load(good_.substr(0, at));
    EXPECT_FALSE(status.ok()) << "cut at " << at;
    EXPECT_FALSE(MessageOf(status).empty()) << "cut at " << at;
  }
  EXPECT_THAT(MessageOf(Load(good_.substr(0, good_.size() - 1))),
              HasSubstr("tensor=blk.3.ffn_down.weight"));
}

TEST_F(GgufModelTest, FlippedHeaderBytesNeverEndTheProcess) {
  std::mt19937 random(20240607);
  size_t errors = 0;
  std::uniform_int_distribution<size_t> everywhere(0, kHeaderBytes - 1);
  for (int i = 0; i < 400; ++i) {
    std::string bytes = good_;
    // Half of the flips hit the keys before the vocabulary, where most of the meaning is.
    const size_t at = i % 2 == 0 ? everywhere(random) : everywhere(random) % 1024;
    bytes[at] = static_cast<char>(random());
    Write(bytes);
    const auto model = GgufModel::Load(path_, WeightsMode::kAsStored);
    if (model.ok()) {
      (void)Tokenizer::Load(path_);  // whatever it says, it must return
    } else {
      ++errors;
    }
  }
  EXPECT_GT(errors, 50U);
}

TEST_F(GgufModelTest, KeysOutOfBounds) {
  const auto set_u32 = [](const char* key, uint32_t value) {
    return [=](gguf_context* file) { gguf_set_val_u32(file, key, value); };
  };
  for (const char* key :
       {"llama.block_count", "llama.embedding_length", "llama.feed_forward_length",
        "llama.context_length", "llama.attention.head_count", "llama.attention.key_length",
        "llama.rope.dimension_count", "llama.vocab_size"}) {
    ExpectEditError(set_u32(key, 0), key);
    ExpectEditError(set_u32(key, 0xFFFFFFFF), key);
  }
  ExpectEditError(set_u32("llama.attention.head_count_kv", 3), "head_count_kv");
  ExpectEditError(set_u32("llama.rope.dimension_count", 63), "must be even");
  ExpectEditError(set_u32("llama.expert_count", 8), "llama.expert_count");
  ExpectEditError(set_u32("llama.block_count", 5), "blk.4.attn_norm.weight");
  ExpectEditError(set_u32("llama.block_count", 3), "blk.3.");
  ExpectEditError(set_u32("llama.feed_forward_length", 512), "ffn_gate.weight shape=256x640");
}

TEST_F(GgufModelTest, KeysOfTheWrongKind) {
  using Edit = std::function<void(gguf_context*)>;
  const std::vector<std::pair<Edit, std::string>> cases = {
      {[](gguf_context* f) { gguf_set_val_str(f, "general.architecture", "qwen2"); },
       "general.architecture=qwen2"},
      {[](gguf_context* f) { gguf_set_val_u32(f, "general.architecture", 1); }, "no string"},
      {[](gguf_context* f) { gguf_remove_key(f, "llama.block_count"); }, "llama.block_count"},
      {[](gguf_context* f) { gguf_set_val_str(f, "llama.block_count", "4"); },
       "no unsigned integer"},
      {[](gguf_context* f) { gguf_set_val_i32(f, "llama.block_count", -4); },
       "no unsigned integer"},
      {[](gguf_context* f) { gguf_set_val_f32(f, "llama.rope.freq_base", NAN); }, "freq_base"},
      {[](gguf_context* f) { gguf_set_val_u32(f, "llama.rope.freq_base", 10000); },
       "floating-point"},
      {[](gguf_context* f) { gguf_set_val_str(f, "llama.rope.scaling.type", "yarn"); },
       "value=yarn"},
      {[](gguf_context* f) {
         gguf_set_val_f32(f, "llama.attention.layer_norm_rms_epsilon", -1.0F);
       },
       "layer_norm_rms_epsilon"},
      {[](gguf_context* f) { gguf_set_val_u32(f, "tokenizer.ggml.tokens", 1); },
       "tokenizer.ggml.tokens"},
      {[](gguf_context* f) { gguf_remove_key(f, "tokenizer.ggml.tokens"); },
       "tokenizer.ggml.tokens"},
      {[](gguf_context* f) {
         const int32_t type = 1;
         gguf_set_arr_data(f, "tokenizer.ggml.token_type", GGUF_TYPE_INT32, &type, 1);
       },
       "tokenizer.ggml.token_type"},
      {[](gguf_context* f) { gguf_set_val_u32(f, "tokenizer.ggml.merges", 1); },
       "tokenizer.ggml.merges"},
  };
  for (const auto& [edit, text] : cases) ExpectEditError(edit, text);
}

TEST_F(GgufModelTest, LinearScalingIsTheOnlyOne) {
  EXPECT_TRUE(LoadEdited([](gguf_context* file) {
                gguf_set_val_str(file, "llama.rope.scaling.type", "linear");
                gguf_set_val_f32(file, "llama.rope.scaling.factor", 4.0F);
              }).ok());
  const GgufModel model = ValueOrDie(GgufModel::Load(path_, WeightsMode::kAsStored));
  EXPECT_EQ(model.parameters().rope_scale, 0.25);
}

TEST_F(GgufModelTest, TensorsMissingMisshapedOrUnknown) {
  const std::string name = "blk.1.attn_k.weight";
  const auto message = [&](const std::string& dropped, const std::string& added, ggml_type type,
                           const std::vector<int64_t>& shape) {
    return MessageOf(LoadCopy(dropped, added, type, shape, [](gguf_context*) {}));
  };
  EXPECT_THAT(message(name, "", GGML_TYPE_F16, {}), HasSubstr("lacks a tensor: tensor=" + name));
  EXPECT_THAT(message(name, name, GGML_TYPE_F16, {256, 64}),
              HasSubstr("tensor=" + name + " shape=256x64x1x1 expected=256x128"));
  EXPECT_THAT(message(name, name, GGML_TYPE_F16, {256, 128, 2}), HasSubstr("wrong shape"));
  EXPECT_THAT(message(name, name, GGML_TYPE_I32, {256, 128}), HasSubstr("type=i32"));
  EXPECT_THAT(message("output_norm.weight", "output_norm.weight", GGML_TYPE_F16, {256}),
              HasSubstr("type=f16"));
  EXPECT_THAT(message("", "blk.0.attn_q.bias", GGML_TYPE_F32, {256}),
              HasSubstr("does not know: tensor=blk.0.attn_q.bias"));
  EXPECT_THAT(message("", "rope_freqs.weight", GGML_TYPE_F32, {32}), HasSubstr("rope factor"));
  EXPECT_EQ(message("", "output.weight", GGML_TYPE_F16, {256, 1536}), "");
}

}  // namespace
}  // namespace kvasir::engine::testing
