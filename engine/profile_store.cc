#include "engine/profile_store.h"

#include <algorithm>

#include "base/status_macros.h"
#include "kernels/row_convert.h"

namespace kvasir::engine {

QueryStore::QueryStore(std::unique_ptr<KvStore> store, const HyperParameters& parameters,
                       QuerySquares& squares)
    : OwningStore(std::move(store)),
      row_floats_(parameters.heads * parameters.head_dim),
      squares_(squares),
      queries_(parameters.layers) {
  squares_.sums.resize(parameters.layers, std::vector<double>(row_floats_, 0.0));
}

absl::StatusOr<StepView> QueryStore::Begin(uint32_t want) {
  KVASIR_ASSIGN_OR_RETURN(StepView step, OwningStore::Begin(want));
  layers_.assign(step.layers.begin(), step.layers.end());
  count_ = step.count;
  for (size_t i = 0; i < layers_.size(); ++i) {
    queries_[i].resize(size_t{step.count} * row_floats_);
    layers_[i].queries = {queries_[i].data(), step.row, step.count, row_floats_};
  }
  step.layers = layers_;
  return step;
}

absl::Status QueryStore::Commit(std::span<const uint32_t> ids) {
  KVASIR_RETURN_IF_ERROR(OwningStore::Commit(ids));
  for (size_t layer = 0; layer < queries_.size(); ++layer) {
    std::vector<double>& sums = squares_.sums[layer];
    for (size_t i = 0; i < ids.size() * row_floats_; ++i) {
      const double value = queries_[layer][i];
      sums[i % row_floats_] += value * value;
    }
  }
  squares_.queries += ids.size();
  return absl::OkStatus();
}

absl::StatusOr<StepView> OneLayerEncodedStore::Begin(uint32_t want) {
  const uint64_t due = done_ + config_.shape.rows + config_.recent;
  const uint64_t left = rows() >= due ? want : due - rows();
  KVASIR_ASSIGN_OR_RETURN(
      const StepView step,
      OwningStore::Begin(static_cast<uint32_t>(std::min<uint64_t>(want, left))));
  if (rows() >= due) Encode(step.layers[config_.layer]);
  return step;
}

void OneLayerEncodedStore::Encode(const LayerView& view) {
  const kernels::RecordShape& shape = config_.shape;
  const bool key = shape.plane == kernels::RecordPlane::kKey;
  const size_t head_bytes = shape.dims * kernels::ElementBytes(shape.type);
  record_.resize(kernels::RecordBytes(shape));
  rows_.resize(size_t{shape.rows} * shape.dims);
  for (uint32_t head = 0; head < config_.kv_heads; ++head) {
    std::vector<std::byte*> rows;
    for (uint32_t i = 0; i < shape.rows; ++i) {
      rows.push_back((key ? view.KeyOf(done_ + i) : view.ValueOf(done_ + i)) + head * head_bytes);
    }
    const std::vector<const std::byte*> sources(rows.begin(), rows.end());
    kernels::EncodeRecord(shape, sources, {}, {}, record_.data());
    kernels::DecodeRecord(shape, record_.data(), rows_.data());
    for (size_t i = 0; i < rows.size(); ++i) {
      for (uint32_t c = 0; c < shape.dims; ++c) {
        kernels::StoreElement(shape.type, rows[i], c, rows_[i * shape.dims + c]);
      }
    }
  }
  done_ += shape.rows;
}

}  // namespace kvasir::engine
