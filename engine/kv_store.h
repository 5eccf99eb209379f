// KvStore: where an engine gets the memory for its K and V rows, one sequence each.
//
// A step is Begin() -> compute the rows of the view -> Commit() of their token ids. Between Begin()
// and Commit() the views are valid; rows of a step that was not committed are forgotten by the next
// Begin().
#ifndef KVASIR_ENGINE_KV_STORE_H_
#define KVASIR_ENGINE_KV_STORE_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "base/error.h"
#include "client/view.h"

namespace kvasir::engine {

// Shape of one token's rows; the same in all layers of a Llama model.
struct KvGeometry {
  uint32_t layers = 0;
  uint32_t slots_per_block = 64;
  uint32_t k_row_bytes = 0;  // kv_heads * head_dim * bytes of the element type
  uint32_t v_row_bytes = 0;
};

struct KvUsage {
  uint64_t tokens_seen = 0;  // rows committed
  uint64_t tokens_kept = 0;  // rows still visible to the next query, the mean over the layers
  uint64_t held_bytes = 0;   // memory allocated for the sequence
};

// A saved sequence, from which another store goes on.
struct KvSnapshot {
  std::string id;  // 16 bytes
  uint64_t rows = 0;
  std::string retention;  // canonical
};

// Not thread-safe: one engine thread drives a sequence.
class KvStore {
 public:
  virtual ~KvStore() = default;

  // What it retains, as canonical text: a profile of the owner's is named by its digest.
  virtual std::string retention() const { return "full"; }

  // Rows committed so far.
  virtual uint64_t rows() const = 0;

  // Space for the next rows, at most `want` (> 0) and at least 1 in one batch; the batch is exact:
  // all its rows share the returned tables. May wait for the owner of the memory, up to its
  // deadline. Errors: kResourceExhausted without memory, kOutOfRange at the sequence's last row,
  // kFailedPrecondition after Close(), others as the owner reports.
  virtual absl::StatusOr<StepView> Begin(uint32_t want) = 0;

  // The first token_ids.size() rows of the step are written and have these ids.
  // Errors: kInvalidArgument for more ids than rows of the step.
  virtual absl::Status Commit(std::span<const uint32_t> token_ids) = 0;

  // The layer by whose keys the store will choose among the rows of the prompt; none where it does
  // not choose, or has chosen. See SelectRows().
  virtual std::optional<uint32_t> filter_layer() const { return std::nullopt; }

  // Chooses among the committed rows by their keys in the filter layer. `query`: that of the last
  // row, see LlamaEngine::ComputeFilter(). Then the store is empty: the tokens of the returned rows
  // (ascending) are a new prompt. Rows above the filter layer need not have been written.
  // Errors: kFailedPrecondition without filter_layer() or rows; as the owner reports.
  virtual absl::StatusOr<std::vector<uint32_t>> SelectRows(std::span<const float> /*query*/) {
    return FailedPrecondition("the store selects no rows: it has no selection policy");
  }

  // Whether layers are shown rows far away that a lookup finds: Retrieve() is then called for every
  // layer of every step whose view has a far_position, between Begin() and Commit().
  virtual bool retrieves() const { return false; }

  // The blocks that the step's queries see in `layer` beside its view, one run each; valid until
  // the layer's next call. `query`: [head][head_dim], the mean over the step's queries, rotated at
  // the layer's far_position. `mass`: what attention gave each of the layer's blocks of the last
  // step; empty where that is not known.
  // Errors: kFailedPrecondition without retrieves(); as the owner reports.
  virtual absl::StatusOr<std::span<const KeptRunView>> Retrieve(uint32_t /*layer*/,
                                                                std::span<const float> /*query*/,
                                                                std::span<const float> /*mass*/) {
    return FailedPrecondition("the store retrieves no blocks: it has no retrieval policy");
  }

  // Forgets the rows from `row` on. Errors: kOutOfRange above rows(); kFailedPrecondition where an
  // earlier table is gone.
  virtual absl::Status Truncate(uint64_t row) = 0;

  // Saves the committed rows. Errors: kFailedPrecondition where that is not possible; as the owner
  // reports.
  virtual absl::StatusOr<KvSnapshot> Save() {
    return FailedPrecondition("the store saves nothing: its memory ends with it");
  }
  // Forgets what was saved. Errors: kNotFound; as Save().
  virtual absl::Status DropSnapshot(const std::string& /*id*/) {
    return FailedPrecondition("the store saves nothing: its memory ends with it");
  }

  // Offers the committed rows to later stores of the same tokens. Errors: kFailedPrecondition where
  // they are private or must not be shared; as the owner reports.
  virtual absl::Status PublishPrefix() {
    return FailedPrecondition("the store shares nothing: its memory is its own");
  }

  virtual absl::StatusOr<KvUsage> Usage() = 0;

  // Gives the memory back. Views become invalid.
  virtual absl::Status Close() = 0;
};

}  // namespace kvasir::engine

#endif  // KVASIR_ENGINE_KV_STORE_H_
