#include "client/c/kvasir.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/status_macros.h"
#include "client/c/batch.h"
#include "client/c/convert.h"
#include "client/c/handles.h"
#include "client/c/view_layout.h"
#include "client/session.h"

using kvasir::c::Guarded;
using kvasir::c::Missing;

struct kvasir_prefix_forms {
  std::vector<kvasir::PrefixForm> owned;  // of the texts below
  std::vector<kvasir_prefix_form> forms;
};

namespace {

// The views as they lie in memory (view_layout.h).
kvasir_step StepOf(const kvasir::StepView& view) {
  return {view.row, view.count, reinterpret_cast<const kvasir_layer_view*>(view.layers.data()),
          view.layers.size(), view.mass_decay};
}

}  // namespace

extern "C" {

const char* kvasir_version(void) { return KVASIR_VERSION; }
uint32_t kvasir_abi(void) { return KVASIR_ABI; }

kvasir_code kvasir_connect(const kvasir_connect_options* options, kvasir_session** session,
                           kvasir_error* error) {
  return Guarded(error, [&]() -> absl::Status {
    if (session == nullptr) return Missing("session");
    *session = nullptr;
    KVASIR_ASSIGN_OR_RETURN(const auto converted, kvasir::c::ToConnectOptions(options));
    KVASIR_ASSIGN_OR_RETURN(auto devices, kvasir::c::ToDevices(options));
    auto connected = kvasir::Session::Connect(converted);
    if (connected.ok()) *session = new kvasir_session{std::move(devices), *std::move(connected)};
    return connected.status();
  });
}

void kvasir_disconnect(kvasir_session* session) { delete session; }

kvasir_code kvasir_register_model(kvasir_session* session, const kvasir_model_spec* spec,
                                  kvasir_model* model, kvasir_error* error) {
  return Guarded(error, [&]() -> absl::Status {
    if (session == nullptr || model == nullptr) return Missing("session or model");
    KVASIR_ASSIGN_OR_RETURN(const auto converted, kvasir::c::ToModelSpec(spec));
    const auto handle = session->session->RegisterModel(converted);
    if (handle.ok()) {
      model->id = handle->id;
      model->slots_per_block = handle->slots_per_block;
      handle->fingerprint.copy(reinterpret_cast<char*>(model->fingerprint),
                               sizeof(model->fingerprint));
      if (handle->device != nullptr) {
        kvasir::MutexLock lock(session->mutex);
        session->model_devices.try_emplace(handle->id, handle->device->facts().uuid);
      }
    }
    return handle.status();
  });
}

kvasir_code kvasir_digest_file(const char* path, uint8_t digest[32], kvasir_error* error) {
  return Guarded(error, [&]() -> absl::Status {
    if (path == nullptr || digest == nullptr) return Missing("path or digest");
    const auto made = kvasir::DigestFile(path);
    if (made.ok()) made->copy(reinterpret_cast<char*>(digest), 32);
    return made.status();
  });
}

kvasir_code kvasir_match_prefix(kvasir_session* session, const kvasir_model* model,
                                const kvasir_prompt* prompt, uint32_t prefetch,
                                kvasir_prefix_forms** forms, kvasir_error* error) {
  return Guarded(error, [&]() -> absl::Status {
    if (session == nullptr || forms == nullptr) return Missing("session or forms");
    *forms = nullptr;
    KVASIR_ASSIGN_OR_RETURN(const auto handle, kvasir::c::ToModel(model));
    KVASIR_ASSIGN_OR_RETURN(const auto converted, kvasir::c::ToPrompt(prompt));
    auto found = session->session->MatchPrefix(handle, converted, prefetch != 0);
    if (!found.ok()) return found.status();
    auto made = std::make_unique<kvasir_prefix_forms>();
    made->owned = *std::move(found);
    for (const kvasir::PrefixForm& form : made->owned) {
      made->forms.push_back({form.retention.c_str(), static_cast<int32_t>(form.quality),
                             form.is_public ? 1U : 0U, form.rows, form.place.c_str(),
                             form.condensed_from.c_str()});
    }
    *forms = made.release();
    return absl::OkStatus();
  });
}

size_t kvasir_prefix_forms_count(const kvasir_prefix_forms* forms) {
  return forms == nullptr ? 0 : forms->forms.size();
}

const kvasir_prefix_form* kvasir_prefix_forms_at(const kvasir_prefix_forms* forms, size_t index) {
  return index < kvasir_prefix_forms_count(forms) ? &forms->forms[index] : nullptr;
}

void kvasir_prefix_forms_free(kvasir_prefix_forms* forms) { delete forms; }

kvasir_code kvasir_open(kvasir_session* session, const kvasir_open_options* options,
                        kvasir_sequence** sequence, kvasir_error* error) {
  return Guarded(error, [&]() -> absl::Status {
    if (session == nullptr || sequence == nullptr) {
      return Missing("session or sequence");
    }
    *sequence = nullptr;
    KVASIR_ASSIGN_OR_RETURN(const auto converted, kvasir::c::ToOpenOptions(options));
    auto opened = session->session->OpenSequence(converted);
    if (opened.ok()) *sequence = new kvasir_sequence{session->devices, *std::move(opened)};
    return opened.status();
  });
}

kvasir_code kvasir_close(kvasir_sequence* sequence, kvasir_error* error) {
  return Guarded(error, [&]() -> absl::Status {
    const std::unique_ptr<kvasir_sequence> owned(sequence);
    return owned == nullptr ? absl::OkStatus() : owned->sequence.Close();
  });
}

kvasir_code kvasir_begin(kvasir_sequence* sequence, uint32_t want_rows, kvasir_step* step,
                         kvasir_error* error) {
  return Guarded(error, [&]() -> absl::Status {
    if (sequence == nullptr || step == nullptr) return Missing("sequence or step");
    *step = {};
    const auto view = sequence->sequence.Begin(want_rows);
    if (view.ok()) *step = StepOf(*view);
    return view.status();
  });
}

kvasir_code kvasir_commit(kvasir_sequence* sequence, const uint32_t* ids, size_t count,
                          kvasir_error* error) {
  return Guarded(error, [&]() -> absl::Status {
    if (sequence == nullptr || ids == nullptr) return Missing("sequence or ids");
    return sequence->sequence.Commit({ids, count});
  });
}

kvasir_code kvasir_begin_many(kvasir_sequence* const* sequences, size_t count, uint32_t want_rows,
                              kvasir_step* steps, int32_t* codes, kvasir_error* error) {
  return Guarded(error, [&]() -> absl::Status {
    if (count > 0 && steps == nullptr) return Missing("steps");
    if (count > 0 && sequences == nullptr) return Missing("sequences");
    std::fill_n(steps, count, kvasir_step{});
    kvasir::c::Batch batch(sequences, count, codes);
    kvasir::Sequence::BeginMany(batch.sequences(), want_rows, [&](size_t i, const auto& view) {
      if (view.ok()) steps[batch.index(i)] = StepOf(*view);
      batch.Answer(batch.index(i), view.status());
    });
    return batch.first_error();
  });
}

kvasir_code kvasir_commit_many(kvasir_sequence* const* sequences, size_t count, const uint32_t* ids,
                               int32_t* codes, kvasir_error* error) {
  return Guarded(error, [&]() -> absl::Status {
    if (count > 0 && ids == nullptr) return Missing("ids");
    if (count > 0 && sequences == nullptr) return Missing("sequences");
    kvasir::c::Batch batch(sequences, count, codes);
    kvasir::Sequence::CommitMany(
        batch.sequences(), batch.Present(ids),
        [&](size_t i, const absl::Status& status) { batch.Answer(batch.index(i), status); });
    return batch.first_error();
  });
}

kvasir_code kvasir_truncate(kvasir_sequence* sequence, uint64_t rows, kvasir_error* error) {
  return Guarded(error, [&]() -> absl::Status {
    if (sequence == nullptr) return Missing("sequence");
    return sequence->sequence.Truncate(rows);
  });
}

kvasir_code kvasir_save(kvasir_sequence* sequence, kvasir_snapshot* snapshot, kvasir_error* error) {
  return Guarded(error, [&]() -> absl::Status {
    if (sequence == nullptr || snapshot == nullptr) {
      return Missing("sequence or snapshot");
    }
    const auto saved = sequence->sequence.Save();
    if (saved.ok()) {
      saved->id.copy(reinterpret_cast<char*>(snapshot->id), sizeof(snapshot->id));
      snapshot->rows = saved->rows;
      snapshot->held_bytes = saved->held_bytes;
    }
    return saved.status();
  });
}

kvasir_code kvasir_drop_snapshot(kvasir_session* session, const uint8_t id[16],
                                 kvasir_error* error) {
  return Guarded(error, [&]() -> absl::Status {
    if (session == nullptr || id == nullptr) return Missing("session or id");
    return session->session->DropSnapshot(std::string(reinterpret_cast<const char*>(id), 16));
  });
}

kvasir_code kvasir_publish_prefix(kvasir_sequence* sequence, uint64_t* rows, uint64_t* held_bytes,
                                  kvasir_error* error) {
  return Guarded(error, [&]() -> absl::Status {
    if (sequence == nullptr) return Missing("sequence");
    const auto published = sequence->sequence.PublishPrefix();
    if (published.ok() && rows != nullptr) *rows = published->rows;
    if (published.ok() && held_bytes != nullptr) *held_bytes = published->held_bytes;
    return published.status();
  });
}

kvasir_code kvasir_select_rows(kvasir_sequence* sequence, const float* query, size_t query_floats,
                               uint32_t* rows, size_t capacity, size_t* count,
                               kvasir_error* error) {
  return Guarded(error, [&]() -> absl::Status {
    if (sequence == nullptr || query == nullptr || count == nullptr ||
        (rows == nullptr && capacity > 0)) {
      return Missing("sequence, query, rows or count");
    }
    const auto chosen = sequence->sequence.SelectRows({query, query_floats});
    if (!chosen.ok()) return chosen.status();
    *count = chosen->size();
    std::copy_n(chosen->begin(), std::min(capacity, chosen->size()), rows);
    return absl::OkStatus();
  });
}

kvasir_code kvasir_retrieve(kvasir_sequence* sequence, uint32_t layer, const float* query,
                            size_t query_floats, const float* mass, size_t mass_floats,
                            const kvasir_kept_run** runs, size_t* run_count, kvasir_error* error) {
  return Guarded(error, [&]() -> absl::Status {
    if (sequence == nullptr || query == nullptr || runs == nullptr || run_count == nullptr ||
        (mass == nullptr && mass_floats > 0)) {
      return Missing("sequence, query, mass, runs or run_count");
    }
    const auto found =
        sequence->sequence.Retrieve(layer, {query, query_floats}, {mass, mass_floats});
    *runs = nullptr;
    *run_count = 0;
    if (found.ok()) {
      *runs = reinterpret_cast<const kvasir_kept_run*>(found->data());
      *run_count = found->size();
    }
    return found.status();
  });
}

uint64_t kvasir_rows(const kvasir_sequence* sequence) {
  return sequence == nullptr ? 0 : sequence->sequence.rows();
}
uint64_t kvasir_sequence_id(const kvasir_sequence* sequence) {
  return sequence == nullptr ? 0 : sequence->sequence.id();
}
const char* kvasir_retention(const kvasir_sequence* sequence) {
  return sequence == nullptr ? "" : sequence->sequence.retention().c_str();
}
const char* kvasir_condensed_from(const kvasir_sequence* sequence) {
  return sequence == nullptr ? "" : sequence->sequence.condensed_from().c_str();
}
uint32_t kvasir_slots_per_block(const kvasir_sequence* sequence) {
  return sequence == nullptr ? 0 : sequence->sequence.slots_per_block();
}
int64_t kvasir_filter_layer(const kvasir_sequence* sequence) {
  if (sequence == nullptr) return -1;
  const std::optional<uint32_t> layer = sequence->sequence.filter_layer();
  return layer ? int64_t{*layer} : -1;
}
uint32_t kvasir_retrieves(const kvasir_sequence* sequence) {
  return sequence != nullptr && sequence->sequence.retrieves() ? 1 : 0;
}

kvasir_code kvasir_measure_footprint(kvasir_sequence* sequence, kvasir_footprint* footprint,
                                     kvasir_error* error) {
  return Guarded(error, [&]() -> absl::Status {
    if (sequence == nullptr || footprint == nullptr) {
      return Missing("sequence or footprint");
    }
    const auto measured = sequence->sequence.MeasureFootprint();
    if (measured.ok()) {
      *footprint = {measured->held_bytes, measured->kept_rows, measured->version};
    }
    return measured.status();
  });
}

}  // extern "C"
