// Kvasir itself: a daemon of the bench's own, and the client library as an engine uses it.
//
// A fetch opens a sequence with the prompt's tokens and reads all rows in place, in the order in
// which they lie in memory. A layer is read through the views of a sequence that is open. A small
// block is asked for by its tokens, a call that says whether and in which forms it is there, and
// read through the views of a sequence that has attached to it. What is stored was written in
// place, into the sequence's recent blocks, by its engine; or it is copied there first.
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "bench/daemon_process.h"
#include "bench/kernel_data.h"
#include "bench/peer.h"
#include "client/session.h"

#include <fmt/format.h>

namespace kvasir::bench {
namespace {

constexpr uint64_t kPoolBytes = 3 * kGiB, kReadyBytes = kGiB;
constexpr uint32_t kVocabulary = 128'256;

ModelSpec ShapeOf(uint64_t layers) {
  ModelSpec spec;
  spec.name = fmt::format("{} layers of Llama-3-8B", layers);
  spec.layers.assign(layers, LayerSpec{.kv_heads = 8, .k_head_dim = 128, .v_head_dim = 128});
  spec.vocabulary_size = kVocabulary;
  spec.slots_per_block = kBlockTokens;
  spec.weights_digest = std::string(16, 'w');
  return spec;
}

std::vector<uint32_t> TokensOf(uint64_t number, uint64_t count) {
  std::mt19937_64 random(number);
  std::vector<uint32_t> tokens(count);
  for (uint32_t& token : tokens) token = static_cast<uint32_t>(random() % kVocabulary);
  return tokens;
}

PrefixOptions PromptOf(uint64_t number, uint64_t count) {
  PrefixOptions prompt;
  prompt.tokens = TokensOf(number, count);
  return prompt;
}

uint64_t SumOf(const KeptRunView& run) {
  return ReadOnce(run.k, uint64_t{run.rows} * run.k_stride) +
         ReadOnce(run.v, uint64_t{run.rows} * run.v_stride);
}

uint64_t SumOf(const LayerView& layer) {
  uint64_t sum = 0;
  for (const KeptRunView& run : layer.kept) sum += SumOf(run);
  return sum;
}

// All layers, block by block. Each layer has the same runs.
uint64_t SumOf(const StepView& step) {
  uint64_t sum = 0;
  for (size_t i = 0; i < step.layers[0].kept.size(); ++i) {
    for (const LayerView& layer : step.layers) sum += SumOf(layer.kept[i]);
  }
  return sum;
}

// A sequence with the views of its next row.
struct Attached {
  Sequence sequence;
  StepView step;
};

class KvasirPeer final : public Peer {
 public:
  static absl::StatusOr<std::unique_ptr<Peer>> Start(const PeerData& data) {
    KVASIR_ASSIGN_OR_RETURN(
        std::unique_ptr<DaemonProcess> daemon,
        DaemonProcess::Start(kPoolBytes, kReadyBytes, "", "", data.huge_pages ? "try" : "off"));
    KVASIR_ASSIGN_OR_RETURN(std::unique_ptr<KvasirPeer> peer, Connect(daemon->connect_options()));
    peer->daemon_ = std::move(daemon);
    peer->data_ = data;
    KVASIR_ASSIGN_OR_RETURN(Sequence written,
                            peer->Write(peer->model_, peer->prompt_, data.prefix, kLayers));
    KVASIR_RETURN_IF_ERROR(written.PublishPrefix().status());
    KVASIR_ASSIGN_OR_RETURN(peer->open_, peer->Attach(peer->model_, peer->prompt_));
    KVASIR_ASSIGN_OR_RETURN(peer->small_model_,
                            peer->session_->RegisterModel(ShapeOf(kSmallLayers)));
    for (uint64_t block = 0; block < kSmallBlocks; ++block) {
      peer->small_prompts_.push_back(PromptOf(1000 + block, kBlockTokens));
      const PrefixOptions& prompt = peer->small_prompts_.back();
      KVASIR_ASSIGN_OR_RETURN(
          Sequence small,
          peer->Write(peer->small_model_, prompt, data.small + block * kSmallBytes, kSmallLayers));
      KVASIR_RETURN_IF_ERROR(small.PublishPrefix().status());
      KVASIR_ASSIGN_OR_RETURN(Attached attached, peer->Attach(peer->small_model_, prompt));
      peer->small_.push_back(std::move(attached));
    }
    return std::unique_ptr<Peer>(std::move(peer));
  }

  static absl::StatusOr<std::unique_ptr<Peer>> Join(const std::string& address) {
    const size_t between = address.find('|');
    ConnectOptions options;
    options.control_socket = address.substr(0, between);
    options.data_socket = address.substr(between + 1);
    KVASIR_ASSIGN_OR_RETURN(std::unique_ptr<KvasirPeer> peer, Connect(options));
    return std::unique_ptr<Peer>(std::move(peer));
  }

  absl::StatusOr<uint64_t> FetchPrefix() override {
    const Instant start = SystemClock().Now();
    KVASIR_ASSIGN_OR_RETURN(fetched_, Attach(model_, prompt_));
    open_ms_ = std::chrono::duration<double, std::milli>(SystemClock().Now() - start).count();
    return SumOf(fetched_.step);
  }
  double open_ms() const override { return open_ms_; }

  absl::StatusOr<uint64_t> FetchLayer(uint64_t layer) override {
    return SumOf(open_.step.layers[layer]);
  }

  absl::StatusOr<uint64_t> FetchSmall(uint64_t block) override {
    KVASIR_RETURN_IF_ERROR(Look(block));
    return SumOf(small_[block].step);
  }

  absl::Status Look(uint64_t block) override {
    KVASIR_ASSIGN_OR_RETURN(const std::vector<PrefixForm> forms,
                            session_->MatchPrefix(small_model_, small_prompts_[block]));
    if (!forms.empty() && forms[0].rows == kBlockTokens) return absl::OkStatus();
    return NotFound("a block is not there: block={}", block);
  }

  absl::Status PrepareStore() override {
    const PrefixOptions prompt = PromptOf(++stores_, kPromptTokens);
    KVASIR_ASSIGN_OR_RETURN(stored_, Write(model_, prompt, data_.prefix, kLayers));
    return absl::OkStatus();
  }

  absl::Status Store(bool rows_in_place) override {
    if (!rows_in_place) KVASIR_RETURN_IF_ERROR(PrepareStore());
    return stored_->PublishPrefix().status();
  }

  absl::Status Between() override {
    fetched_ = {};
    if (!stored_) return absl::OkStatus();
    stored_.reset();
    // What nobody uses goes: the prefix that was stored, and its memory is the next one's.
    const std::string program =
        (std::filesystem::read_symlink("/proc/self/exe").parent_path() / "kvasirctl").string();
    const std::string command = fmt::format("'{}' --socket '{}' evict --tenant bench >/dev/null",
                                            program, daemon_->connect_options().control_socket);
    return std::system(command.c_str()) == 0 ? absl::OkStatus() : Internal("{} failed", command);
  }

  std::string address() const override {
    const ConnectOptions options = daemon_->connect_options();
    return options.control_socket + "|" + options.data_socket;
  }

 private:
  static absl::StatusOr<std::unique_ptr<KvasirPeer>> Connect(const ConnectOptions& options) {
    std::unique_ptr<KvasirPeer> peer(new KvasirPeer);
    KVASIR_ASSIGN_OR_RETURN(peer->session_, Session::Connect(options));
    KVASIR_ASSIGN_OR_RETURN(peer->model_, peer->session_->RegisterModel(ShapeOf(kLayers)));
    return peer;
  }

  OpenOptions OpenOf(const ModelHandle& model, const PrefixOptions& prompt) const {
    OpenOptions open;
    open.model = model;
    open.retention = "full";
    open.prefix = prompt;
    open.max_rows = prompt.tokens.size() + kBlockTokens;  // room for its table alone
    return open;
  }

  // `from`: blocks of as many layers as the model has.
  absl::StatusOr<Sequence> Write(const ModelHandle& model, const PrefixOptions& prompt,
                                 const std::byte* from, uint64_t layers) {
    KVASIR_ASSIGN_OR_RETURN(Sequence sequence, session_->OpenSequence(OpenOf(model, prompt)));
    const std::span<const uint32_t> tokens = prompt.tokens;
    while (sequence.rows() < tokens.size()) {
      const uint64_t row = sequence.rows();
      KVASIR_ASSIGN_OR_RETURN(const StepView step, sequence.Begin(kBlockTokens));
      const std::byte* const block = from + row / kBlockTokens * layers * kSliceBytes;
      for (uint64_t layer = 0; layer < layers; ++layer) {
        const std::byte* const slice = block + layer * kSliceBytes;
        std::memcpy(step.layers[layer].KeyOf(row), slice, kPieceBytes);
        std::memcpy(step.layers[layer].ValueOf(row), slice + kPieceBytes, kPieceBytes);
      }
      KVASIR_RETURN_IF_ERROR(sequence.Commit(tokens.subspan(row, kBlockTokens)));
    }
    return sequence;
  }

  absl::StatusOr<Attached> Attach(const ModelHandle& model, const PrefixOptions& prompt) {
    Attached attached;
    KVASIR_ASSIGN_OR_RETURN(attached.sequence, session_->OpenSequence(OpenOf(model, prompt)));
    KVASIR_ASSIGN_OR_RETURN(attached.step, attached.sequence.Begin(1));
    if (attached.step.row == prompt.tokens.size()) return attached;
    return NotFound("the prefix is not there: rows={} of={}", attached.step.row,
                    prompt.tokens.size());
  }

  std::unique_ptr<DaemonProcess> daemon_;  // nothing: somebody else's
  std::unique_ptr<Session> session_;
  ModelHandle model_, small_model_;
  const PrefixOptions prompt_ = PromptOf(0, kPromptTokens);
  std::vector<PrefixOptions> small_prompts_;
  Attached open_, fetched_;
  std::vector<Attached> small_;
  std::optional<Sequence> stored_;
  uint64_t stores_ = 0;
  double open_ms_ = 0;
  PeerData data_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Peer>> StartKvasir(const PeerData& data) {
  return KvasirPeer::Start(data);
}
absl::StatusOr<std::unique_ptr<Peer>> JoinKvasir(const std::string& address) {
  return KvasirPeer::Join(address);
}

}  // namespace kvasir::bench
