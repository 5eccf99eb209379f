#include "daemon/metrics.h"

#include <utility>

#include "base/error.h"
#include "daemon/metric_names.h"

#include <fmt/format.h>
#include <prometheus/collectable.h>
#include <prometheus/exposer.h>

namespace kvasir {
namespace {

constexpr size_t kScrapeThreads = 1;  // one scraper, one short answer

template <typename Snapshot>
prometheus::MetricFamily NewFamily(const Metric<Snapshot>& metric) {
  prometheus::MetricFamily family;
  family.name = metric.name;
  family.help = metric.help;
  family.type = metric.kind == MetricKind::kCounter ? prometheus::MetricType::Counter
                                                    : prometheus::MetricType::Gauge;
  return family;
}

template <typename Snapshot>
prometheus::ClientMetric NewSample(const Metric<Snapshot>& metric, const Snapshot& snapshot) {
  prometheus::ClientMetric sample;
  const double value = metric.value(snapshot);
  if (metric.kind == MetricKind::kCounter) {
    sample.counter.value = value;
  } else {
    sample.gauge.value = value;
  }
  return sample;
}

prometheus::MetricFamily BuildInfo(const StatsSnapshot& snapshot) {
  prometheus::MetricFamily family;
  family.name = "kvasir_build_info";
  family.help = "Always 1; the labels say which daemon answers.";
  family.type = prometheus::MetricType::Gauge;
  prometheus::ClientMetric sample;
  sample.label = {{"version", snapshot.version},
                  {"boot_epoch", fmt::format("{}", snapshot.boot_epoch)}};
  sample.gauge.value = 1.0;
  family.metric.push_back(std::move(sample));
  return family;
}

prometheus::MetricFamily HitRatios(const StatsSnapshot& snapshot) {
  prometheus::MetricFamily family;
  family.name = kHitRatioName;
  family.help = kHitRatioHelp;
  family.type = prometheus::MetricType::Gauge;
  for (const TenantSnapshot& tenant : snapshot.tenants) {
    for (const auto& [times, ratio] : tenant.hit_ratios) {
      prometheus::ClientMetric sample;
      sample.label = {{"tenant", tenant.tenant}, {"times", fmt::format("{:g}", times)}};
      sample.gauge.value = ratio;
      family.metric.push_back(std::move(sample));
    }
  }
  return family;
}

void AddTiers(const StatsSnapshot& snapshot, std::vector<prometheus::MetricFamily>* out) {
  for (const auto& metric : kStoredMetrics) {
    prometheus::MetricFamily family = NewFamily(metric);
    for (const TierSnapshot& tier : snapshot.tiers) {
      for (const StoredSnapshot& tenant : tier.tenants) {
        prometheus::ClientMetric sample = NewSample(metric, tenant);
        sample.label = {{"tier", tier.tier}, {"tenant", tenant.tenant}};
        family.metric.push_back(std::move(sample));
      }
    }
    out->push_back(std::move(family));
  }
  prometheus::MetricFamily reads, left_out;
  reads.name = kTierReadsName;
  reads.help = kTierReadsHelp;
  reads.type = prometheus::MetricType::Counter;
  left_out.name = kTierLeftOutName;
  left_out.help = kTierLeftOutHelp;
  left_out.type = prometheus::MetricType::Gauge;
  for (const TierSnapshot& tier : snapshot.tiers) {
    for (const auto& [outcome, blocks] : tier.reads) {
      prometheus::ClientMetric sample;
      sample.label = {{"tier", tier.tier}, {"outcome", outcome}};
      sample.counter.value = static_cast<double>(blocks);
      reads.metric.push_back(std::move(sample));
    }
    prometheus::ClientMetric sample;
    sample.label = {{"tier", tier.tier}};
    sample.gauge.value = tier.left_out ? 1.0 : 0.0;
    left_out.metric.push_back(std::move(sample));
  }
  out->push_back(std::move(reads));
  out->push_back(std::move(left_out));
}

void AddDevices(const StatsSnapshot& snapshot, std::vector<prometheus::MetricFamily>* out) {
  for (const auto& metric : kDevicePoolMetrics) {
    prometheus::MetricFamily family = NewFamily(metric);
    for (const DevicePoolSnapshot& pool : snapshot.device_pools) {
      prometheus::ClientMetric sample = NewSample(metric, pool);
      sample.label = {{"pool", pool.pool}, {"device", pool.device_uuid}};
      family.metric.push_back(std::move(sample));
    }
    out->push_back(std::move(family));
  }
  for (const auto& metric : kTenantDeviceMetrics) {
    prometheus::MetricFamily family = NewFamily(metric);
    for (const TenantSnapshot& tenant : snapshot.tenants) {
      for (const TenantDeviceSnapshot& device : tenant.devices) {
        prometheus::ClientMetric sample = NewSample(metric, device);
        sample.label = {{"tenant", tenant.tenant}, {"pool", device.pool}};
        family.metric.push_back(std::move(sample));
      }
    }
    out->push_back(std::move(family));
  }
}

class SnapshotCollectable final : public prometheus::Collectable {
 public:
  explicit SnapshotCollectable(SnapshotFunction snapshot) : snapshot_(std::move(snapshot)) {}
  std::vector<prometheus::MetricFamily> Collect() const override {
    return CollectMetrics(snapshot_());
  }

 private:
  const SnapshotFunction snapshot_;
};

class Endpoint final : public MetricsEndpoint {
 public:
  Endpoint(const std::string& address, SnapshotFunction snapshot)
      : collectable_(std::make_shared<SnapshotCollectable>(std::move(snapshot))),
        exposer_(address, kScrapeThreads) {
    exposer_.RegisterCollectable(collectable_);
  }
  uint16_t port() const override {
    return static_cast<uint16_t>(exposer_.GetListeningPorts().front());
  }

 private:
  // Shared because the exposer holds a weak reference. Declared first: it outlives the exposer's
  // threads.
  std::shared_ptr<SnapshotCollectable> collectable_;
  prometheus::Exposer exposer_;
};

}  // namespace

std::vector<prometheus::MetricFamily> CollectMetrics(const StatsSnapshot& snapshot) {
  std::vector<prometheus::MetricFamily> out;
  out.push_back(BuildInfo(snapshot));
  for (const auto& metric : kDaemonMetrics) {
    prometheus::MetricFamily family = NewFamily(metric);
    family.metric.push_back(NewSample(metric, snapshot));
    out.push_back(std::move(family));
  }
  for (const auto& metric : kTenantMetrics) {
    prometheus::MetricFamily family = NewFamily(metric);
    for (const TenantSnapshot& tenant : snapshot.tenants) {
      prometheus::ClientMetric sample = NewSample(metric, tenant);
      sample.label = {{"tenant", tenant.tenant}};
      family.metric.push_back(std::move(sample));
    }
    out.push_back(std::move(family));
  }
  out.push_back(HitRatios(snapshot));
  AddTiers(snapshot, &out);
  AddDevices(snapshot, &out);
  return out;
}

absl::StatusOr<std::unique_ptr<MetricsEndpoint>> OpenMetricsEndpoint(const std::string& address,
                                                                     SnapshotFunction snapshot) {
  try {
    return std::make_unique<Endpoint>(address, std::move(snapshot));
  } catch (const std::exception& error) {  // civetweb's CivetException: the port is taken
    return Unavailable("metrics endpoint cannot listen: address={} reason={}", address,
                       error.what());
  }
}

}  // namespace kvasir
