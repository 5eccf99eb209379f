// A store that hands everything on to another one: what measures or changes a part of a store
// overrides that part. Not thread-safe.
#ifndef KVASIR_ENGINE_FORWARDING_STORE_H_
#define KVASIR_ENGINE_FORWARDING_STORE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "engine/kv_store.h"

namespace kvasir::engine {

class ForwardingStore : public KvStore {
 public:
  // `store` must outlive it.
  explicit ForwardingStore(KvStore& store) : store_(store) {}

  std::string retention() const override { return store_.retention(); }
  uint64_t rows() const override { return store_.rows(); }
  absl::StatusOr<StepView> Begin(uint32_t want) override { return store_.Begin(want); }
  absl::Status Commit(std::span<const uint32_t> token_ids) override {
    return store_.Commit(token_ids);
  }
  std::optional<uint32_t> filter_layer() const override { return store_.filter_layer(); }
  absl::StatusOr<std::vector<uint32_t>> SelectRows(std::span<const float> query) override {
    return store_.SelectRows(query);
  }
  bool retrieves() const override { return store_.retrieves(); }
  absl::StatusOr<std::span<const KeptRunView>> Retrieve(uint32_t layer,
                                                        std::span<const float> query,
                                                        std::span<const float> mass) override {
    return store_.Retrieve(layer, query, mass);
  }
  absl::Status Truncate(uint64_t row) override { return store_.Truncate(row); }
  absl::StatusOr<KvSnapshot> Save() override { return store_.Save(); }
  absl::Status DropSnapshot(const std::string& id) override { return store_.DropSnapshot(id); }
  absl::StatusOr<KvUsage> Usage() override { return store_.Usage(); }
  absl::Status Close() override { return store_.Close(); }

 private:
  KvStore& store_;
};

// The same, owning the other store.
class OwningStore : public ForwardingStore {
 public:
  explicit OwningStore(std::unique_ptr<KvStore> store)
      : ForwardingStore(*store), store_(std::move(store)) {}

 private:
  const std::unique_ptr<KvStore> store_;
};

}  // namespace kvasir::engine

#endif  // KVASIR_ENGINE_FORWARDING_STORE_H_
