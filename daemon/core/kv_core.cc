#include "daemon/core/kv_core.h"

#include <algorithm>
#include <utility>

#include "base/bytes.h"
#include "base/error.h"
#include "base/log.h"
#include "base/shortage.h"
#include "base/status_macros.h"
#include "index/prefix_scope.h"
#include "proto/shm/layout_hash.h"
#include "proto/shm/probe_pattern.h"

namespace kvasir::core {
namespace {

constexpr uint64_t kTextBytesMax = 64;
constexpr uint64_t kPoolNameBytesMax = 64;
// The layout of one is proved, and keys are turned, by way of memory that is in no budget.
constexpr uint64_t kDeviceGroupBytesMax = 64ULL << 20;
constexpr uint64_t kTextsBytesMax = 64ULL << 20;  // of one model, each entry with its node
constexpr uint64_t kTextNodeBytes = 96;

// Chunks that a tenant's memory has room for. One of a small model that is compacted to a tenth is
// about this large; metadata of one is under a hundredth of it.
constexpr uint64_t kLeastChunkBytes = 64 << 10;

uint32_t PrefixBlocksFor(uint64_t limit_bytes) {
  return static_cast<uint32_t>(
      std::clamp<uint64_t>(limit_bytes / kLeastChunkBytes, 1024, uint64_t{1} << 22));
}

// Nothing: host memory.
absl::StatusOr<std::optional<size_t>> DeviceOf(const CoreConfig& config, const std::string& pool) {
  if (pool.empty()) return std::nullopt;
  if (pool.size() > kPoolNameBytesMax) {
    return InvalidArgument("pool is too long: bytes={} max={}", pool.size(), kPoolNameBytesMax);
  }
  std::string known;
  for (size_t i = 0; i < config.devices.size(); ++i) {
    if (config.devices[i]->name() == pool) return i;
    known += (i > 0 ? "," : "") + config.devices[i]->name();
  }
  return NotFound("unknown pool of a device: pool={} known={}", pool, known);
}

}  // namespace

TenantRules RulesOf(const CoreConfig& config) {
  TenantRules rules;
  for (size_t place = 0; place < config.tenants.size(); ++place) {
    const TenantConfig& tenant = config.tenants[place];
    for (const uint32_t uid : tenant.uids) rules.AddUid(uid, place);
    for (const uint32_t gid : tenant.gids) rules.AddGid(gid, place);
    for (const std::string& cgroup : tenant.cgroups) rules.AddCgroup(cgroup, place);
    if (tenant.name == config.default_tenant) rules.set_default(place);
  }
  return rules;
}

KvCore::KvCore(CoreConfig config, HostPool& pool)
    : config_(std::move(config)),
      pool_(pool),
      lending_(pool_, now_),
      tenant_rules_(RulesOf(config_)) {
  for (const DeviceMemory* device : config_.devices) {
    device_shares_.emplace_back(device->options().pool_bytes, now_);
  }
  for (const TenantConfig& tenant : config_.tenants) {
    PrefixCache::Options prefixes;
    prefixes.eviction = config_.eviction;
    prefixes.entries_max = tenant.counts.prefixes;
    prefixes.blocks_max = PrefixBlocksFor(tenant.limit_bytes);
    prefixes.place = "memory";
    tenants_.push_back(std::make_unique<Tenant>(
        tenant, pool_, lending_, config_.first_extent_bytes, config_.extent_bytes,
        TenantKey(config_.prefix_secret, tenant.name),
        PrefixCache(prefixes, prefix_events_, now_, tenant.name)));
    tenants_.back()->place = tenants_.size() - 1;
    lending_.Add(tenants_.back()->account);
    AddDevices(*tenants_.back(), prefixes);
    for (const TierConfig& tier : config_.tiers) {
      const uint64_t bytes = tier.adopted  ? tenant.limit_bytes
                             : tier.shared ? tenant.remote_bytes
                                           : tenant.stored_bytes;
      prefixes.place = tier.name;
      prefixes.blocks_max = PrefixBlocksFor(bytes);
      tenants_.back()->stores.push_back(
          std::make_unique<PrefixStore>(prefixes, prefix_events_, now_, tenant.name, bytes));
      if (tier.adopted) tenants_.back()->adopted = tenants_.back()->stores.back().get();
    }
    if (!tenant.degrade.empty()) {
      Tenant* const raw = tenants_.back().get();
      raw->end_condensing = [this, raw](bool always) { return EndCondensing(*raw, always); };
    }
  }
  for (const TierConfig& tier : config_.tiers) {
    tiers_.emplace_back().capacity_bytes = tier.capacity_bytes;
  }
}

void KvCore::AddDevices(Tenant& tenant, const PrefixCache::Options& prefixes) {
  for (size_t i = 0; i < config_.devices.size(); ++i) {
    const std::vector<DeviceBudget>& budgets = tenant.config.devices;
    const DeviceBudget budget =
        i < budgets.size() ? budgets[i] : DeviceBudget{config_.devices[i]->name()};
    PrefixCache::Options of_device = prefixes;
    of_device.place = config_.devices[i]->name();
    of_device.blocks_max = PrefixBlocksFor(budget.limit_bytes);
    tenant.devices.push_back(std::make_unique<TenantDevice>(
        tenants_.size(), budget, *config_.devices[i], device_shares_[i], tenant.account,
        PrefixCache(of_device, prefix_events_, now_, tenant.config.name)));
    TenantDevice* const added = tenant.devices.back().get();
    added->account.set_give_up_cached(
        [&tenant, added](bool of_use) { return tenant.GivesUpCachedOn(*added, of_use); });
    device_shares_[i].Add(added->account);
  }
}

bool KvCore::HasEnded(uint32_t session_id) const {
  const auto found = sessions_.find(session_id);
  return found == sessions_.end() || found->second->ended;
}

KvCore::~KvCore() {
  while (!sessions_.empty()) {  // with it go the jobs that nobody has taken
    const uint32_t id = sessions_.begin()->first;
    EndSession(id);
    sessions_.erase(id);
  }
  for (const auto& [id, condensing] : condensings_) condensing->CancelJob();
  (void)jobs_.Remove([](const SequenceJob&) { return true; });
  condensings_.clear();
  tiers_.clear();
  moving_.clear();
  offloads_.Clear();
  verifications_.clear();
  handing_over_.clear();
  // Before any tenant goes: they may name groups of public ones.
  for (const auto& tenant : tenants_) tenant->DropCached();
}

absl::StatusOr<Tenant*> KvCore::TenantOf(const Peer& peer) const {
  const std::optional<size_t> place = tenant_rules_.Find(peer.uid, peer.gid, peer.cgroup);
  if (place) return tenants_[*place].get();
  return PermissionDenied("no tenant has this peer: uid={} gid={} cgroup={}", peer.uid, peer.gid,
                          peer.cgroup);
}

absl::StatusOr<Session*> KvCore::OpenSession(const Peer& peer, const SessionToken& token,
                                             uint64_t boot_epoch, SessionMemory memory,
                                             ExtentSender& sender) {
  KVASIR_ASSIGN_OR_RETURN(Tenant * tenant, TenantOf(peer));
  if (sessions_.size() >= config_.sessions_max) {
    return WithShortage(
        ResourceExhausted("too many sessions: limits.sessions_max={}", config_.sessions_max),
        {"limits.sessions_max", 1, "sessions of all tenants", kCountRetry});
  }
  const uint32_t sessions_max = tenant->account.budget().counts.sessions;
  if (tenant->sessions >= sessions_max) {
    return WithShortage(ResourceExhausted("tenant has too many sessions: tenant={} "
                                          "sessions={} tenant.sessions_max={}",
                                          tenant->config.name, tenant->sessions, sessions_max),
                        {"tenant.sessions_max", 1, "own sessions", kCountRetry});
  }
  const uint32_t id = next_session_id_++;
  auto session =
      std::make_unique<Session>(id, token, peer, *tenant, memory, config_.session_limits, sender,
                                config_.first_extent_bytes, config_.extent_bytes);
  shm::DaemonHeader& header = *memory.header();
  header.magic = shm::kDaemonMagic;
  header.abi = shm::kAbiVersion;
  header.header_bytes = shm::kHeaderBytes;
  header.segment_bytes = session->sizes.d_bytes;
  header.boot_epoch = boot_epoch;
  header.layout_hash = shm::LayoutHash();
  header.session_id = id;
  header.seq_max = session->limits.sequences_max;
  header.seq_off = session->sizes.seq_off;
  header.arena_off = session->sizes.arena_off;
  header.arena_bytes = session->limits.arena_bytes;
  header.e_desk_off = session->sizes.e_desk_off;
  header.e_segment_bytes = session->sizes.e_bytes;
  header.wanted_back.store(tenant->wanted_back, std::memory_order_relaxed);
  header.session_state.store(static_cast<uint32_t>(shm::SessionState::kOpen),
                             std::memory_order_release);
  ++tenant->sessions;
  if (peer.overrides_permissions) ++tenant->overriding_sessions;
  tenant->account.set_may_borrow(tenant->overriding_sessions == 0);
  Session* result = session.get();
  by_token_[token] = result;
  sessions_[id] = std::move(session);
  return result;
}

void KvCore::EndSession(uint32_t session_id) {
  const auto found = sessions_.find(session_id);
  if (found == sessions_.end()) return;
  Session& session = *found->second;
  if (!session.ended) {
    session.ended = true;
    by_token_.erase(session.token);
    // Before any block changes hands: an engine that still computes discards its step.
    session.memory.header()->session_state.store(static_cast<uint32_t>(shm::SessionState::kEnded),
                                                 std::memory_order_seq_cst);
    std::atomic_thread_fence(std::memory_order_seq_cst);
    leases_.EndOf(session.id);
    const auto of_session = [&](const SequenceJob& job) {
      const auto place = sequence_places_.find(job.sequence_id);
      return place != sequence_places_.end() && place->second.session == &session;
    };
    for (std::unique_ptr<SequenceJob>& job : jobs_.Remove(of_session)) {  // not started
      session.sequences[sequence_places_.at(job->sequence_id).slot]->CancelJob();
      job.reset();
    }
    for (const std::unique_ptr<Sequence>& sequence : session.sequences) {
      if (sequence != nullptr) sequence->Abandon();
    }
  }
  DestroyIfIdle(session_id);
}

void KvCore::DestroyIfIdle(uint32_t session_id) {
  Session& session = *sessions_.at(session_id);
  for (std::unique_ptr<Sequence>& sequence : session.sequences) {
    if (sequence == nullptr || sequence->job_out()) continue;
    sequence_places_.erase(sequence->identity().id);
    sequence.reset();
    --session.tenant.sequences;
  }
  if (std::any_of(session.sequences.begin(), session.sequences.end(),
                  [](const auto& sequence) { return sequence != nullptr; })) {
    return;  // FinishJob comes back
  }
  Tenant& tenant = session.tenant;
  for (auto& [id, model] : session.models) {
    if (model->probe) session.RecentOf(*model).For(model->probe_geometry).Free(model->probe);
  }
  if (session.peer.overrides_permissions) --tenant.overriding_sessions;
  tenant.account.set_may_borrow(tenant.overriding_sessions == 0);
  tenant.models -= static_cast<uint32_t>(session.models.size());
  sessions_.erase(session_id);
  --tenant.sessions;
  if (tenant.sessions == 0) tenant.ReturnExtents();
  (void)tenant.SettleDevices();  // before the account, which gets their trailers
  (void)tenant.account.Settle();
  Degrade(tenant);  // what it has used may be given up
}

absl::StatusOr<Session*> KvCore::FindSession(const SessionToken& token) {
  const auto found = by_token_.find(token);
  if (found == by_token_.end()) return Unauthenticated("unknown session token");
  return found->second;
}

void KvCore::Violation(Session& session, const absl::Status& what) {
  ++session.tenant.counters.violations;
  spdlog::warn("session ended for a violation of the protocol: session={} tenant={} pid={} {}",
               session.id, session.tenant.config.name, session.peer.pid, MessageOf(what));
  session.memory.header()->end_reason.store(static_cast<uint32_t>(shm::EndReason::kViolation),
                                            std::memory_order_relaxed);
  EndSession(session.id);
}

void KvCore::EndForViolation(uint32_t session_id, const absl::Status& what) {
  const auto found = sessions_.find(session_id);
  if (found != sessions_.end() && !found->second->ended) Violation(*found->second, what);
}

absl::StatusOr<ModelHandle> KvCore::RegisterModel(Session& session, ModelDescription description,
                                                  const std::string& pool) {
  if (session.models.size() >= session.limits.models_max) {
    return ResourceExhausted("session has too many models: limits.models_per_session_max={}",
                             session.limits.models_max);
  }
  Tenant& tenant = session.tenant;
  const uint32_t models_max = tenant.account.budget().counts.models;
  if (tenant.models >= models_max) {
    return WithShortage(
        ResourceExhausted("tenant has too many models: tenant={} models={} tenant.models_max={}",
                          tenant.config.name, tenant.models, models_max),
        {"tenant.models_max", 1, "own sessions", kCountRetry});
  }
  KVASIR_ASSIGN_OR_RETURN(const std::optional<size_t> device, DeviceOf(config_, pool));
  DeviceMemory* const memory = device ? config_.devices[*device] : nullptr;
  KVASIR_ASSIGN_OR_RETURN(Model model, Model::Create(std::move(description), memory));
  auto registered = std::make_unique<RegisteredModel>(
      RegisteredModel{std::move(model), device, {}, false, {}, {}, 0});
  registered->probe_geometry =
      shm::MakeGroupGeometry(registered->model.row_bytes(), registered->model.slots_per_block());
  if (device && PlaneBytes(registered->probe_geometry) > kDeviceGroupBytesMax) {
    return InvalidArgument(
        "a block group is too large for the memory of a device: pool={} group_bytes={} max={}",
        pool, PlaneBytes(registered->probe_geometry), kDeviceGroupBytesMax);
  }
  GroupAllocator& allocator = session.RecentOf(*registered).For(registered->probe_geometry);
  KVASIR_ASSIGN_OR_RETURN(const Group probe, allocator.Allocate());
  const absl::StatusOr<ExtentTable::Ref> ref = session.extents.RefOf(*probe.extent);
  if (!ref.ok()) {
    allocator.Free(probe);
    return ref.status();
  }
  registered->probe = probe;
  const uint32_t id = session.next_model_id++;
  ModelHandle handle{id, &registered->model, *ref, probe.offset};
  session.models[id] = std::move(registered);
  ++tenant.models;
  return handle;
}

absl::Status KvCore::ProbeLayout(Session& session, uint32_t model_id, uint64_t seed,
                                 uint64_t answer_seed) {
  const auto found = session.models.find(model_id);
  if (found == session.models.end()) return NotFound("unknown model: model_id={}", model_id);
  RegisteredModel& registered = *found->second;
  if (!registered.probe)
    return FailedPrecondition("model is in use already: model_id={}", model_id);
  const shm::GroupGeometry& geometry = registered.probe_geometry;
  // Of a device a copy, which goes back.
  std::vector<std::byte> copy(registered.device ? PlaneBytes(geometry) : 0);
  std::byte* const base = registered.device ? copy.data() : registered.probe.data();
  if (registered.device) {
    KVASIR_RETURN_IF_ERROR(
        config_.devices[*registered.device]->Read(registered.probe.data(), copy));
  }
  for (uint32_t layer = 0; layer < geometry.k_off.size(); ++layer) {
    for (uint32_t plane = 0; plane < 2; ++plane) {
      const uint64_t off = plane == 0 ? geometry.k_off[layer] : geometry.v_off[layer];
      const uint32_t bytes = plane == 0 ? geometry.row_bytes[layer].k : geometry.row_bytes[layer].v;
      for (uint32_t slot = 0; slot < geometry.slots; ++slot) {
        std::byte* const row = base + off + uint64_t{slot} * bytes;
        for (uint32_t b = 0; b < bytes; ++b) {
          if (slot >= geometry.slots / 2) {
            row[b] = std::byte{shm::ProbeByte(answer_seed, layer, plane, slot, b)};
          } else if (row[b] != std::byte{shm::ProbeByte(seed, layer, plane, slot, b)}) {
            return FailedPrecondition(
                "client and daemon lay out blocks differently: layer={} plane={} slot={} byte={}",
                layer, plane == 0 ? "K" : "V", slot, b);
          }
        }
      }
    }
  }
  if (registered.device) {
    KVASIR_RETURN_IF_ERROR(
        config_.devices[*registered.device]->Write(copy, registered.probe.data()));
  }
  registered.probed = true;
  return absl::OkStatus();
}

absl::Status KvCore::PutTokenTexts(Session& session, uint32_t model_id, TokenId first,
                                   const std::vector<std::string>& texts) {
  const auto found = session.models.find(model_id);
  if (found == session.models.end()) return NotFound("unknown model: model_id={}", model_id);
  RegisteredModel& registered = *found->second;
  const uint32_t vocabulary = registered.model.description().vocabulary_size;
  if (uint64_t{first} + texts.size() > vocabulary) {
    return InvalidArgument(
        "texts go beyond the vocabulary: first_id={} count={} vocabulary_size={}", first,
        texts.size(), vocabulary);
  }
  for (const std::string& text : texts) {
    if (text.size() > kTextBytesMax) {
      return InvalidArgument("texts has an entry that is too long: bytes={} max={}", text.size(),
                             kTextBytesMax);
    }
  }
  uint64_t bytes = registered.texts_bytes;
  for (size_t i = 0; i < texts.size(); ++i) {
    const auto known = registered.texts.find(first + static_cast<TokenId>(i));
    bytes += texts[i].size();
    bytes += known == registered.texts.end() ? kTextNodeBytes : 0;
    bytes -= known == registered.texts.end() ? 0 : known->second.size();
  }
  if (bytes > kTextsBytesMax) {
    return ResourceExhausted("model has too many token texts: bytes={} max={}", bytes,
                             kTextsBytesMax);
  }
  for (size_t i = 0; i < texts.size(); ++i) {
    registered.texts[first + static_cast<TokenId>(i)] = texts[i];
  }
  registered.texts_bytes = bytes;
  return absl::OkStatus();
}

bool KvCore::Settle() {
  bool held = false;
  for (const auto& tenant : tenants_) {
    // What only an engine that has gone could still have mapped a moment ago.
    if (tenant->sessions == 0) tenant->ReturnExtents();
    held |= tenant->SettleDevices();
    held |= tenant->account.Settle();
  }
  return held;
}

}  // namespace kvasir::core
