//! Objects of the clusters of these tests.

/// Node node-a with the pods shop/web-1 and shop/web-2, and the Service shop/web with them as endpoints.
pub(crate) const SHOP: &str = "
{apiVersion: v1, kind: Node, metadata: {name: node-a}, spec: {podCIDRs: [10.244.0.0/24]},
  status: {addresses: [{type: InternalIP, address: 192.0.2.1}]}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: shop}}
---
{apiVersion: v1, kind: Service, metadata: {name: web, namespace: shop},
  spec: {type: NodePort, clusterIP: 10.96.0.10, selector: {app: web},
    ports: [{name: http, port: 80, targetPort: 8080, nodePort: 30080}]}}
---
{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4,
  metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}},
  ports: [{name: http, port: 8080}], endpoints: [
    {addresses: [10.244.0.11], nodeName: node-a, conditions: {ready: true}},
    {addresses: [10.244.1.12], nodeName: node-b, conditions: {ready: true}},
    {addresses: [10.244.1.13], nodeName: node-b, conditions: {ready: false}}]}
---
{apiVersion: v1, kind: Service, metadata: {name: dns, namespace: kube-system},
  spec: {clusterIP: 10.96.0.53, ports: [{name: dns, port: 53, protocol: UDP}, {name: metrics, port: 9153}]}}
---
{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4,
  metadata: {name: dns-1, namespace: kube-system, labels: {kubernetes.io/service-name: dns}},
  ports: [{name: dns, port: 53, protocol: UDP}, {name: metrics, port: 9153}],
  endpoints: [{addresses: [10.244.1.20], nodeName: node-b, conditions: {ready: true}}]}
---
{apiVersion: v1, kind: Pod, metadata: {name: web-1, namespace: shop, labels: {app: web}},
  spec: {nodeName: node-a}, status: {phase: Running, podIP: 10.244.0.11, podIPs: [{ip: 10.244.0.11}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: web-2, namespace: shop, labels: {app: web}},
  spec: {nodeName: node-b}, status: {phase: Running, podIP: 10.244.1.12, podIPs: [{ip: 10.244.1.12}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: basket, namespace: shop, labels: {app: basket}},
  spec: {nodeName: node-a}, status: {phase: Running, podIP: 10.244.0.30, podIPs: [{ip: 10.244.0.30}]}}
";

/// A policy that allows only the pods of shop/basket to connect to shop/web.
pub(crate) const POLICY: &str = "
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: web, namespace: shop},
  spec: {podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {matchLabels: {app: basket}}}]}]}}
";

/// A Service without endpoints.
pub(crate) const WITHOUT_ENDPOINTS: &str = "
{apiVersion: v1, kind: Service, metadata: {name: search, namespace: shop},
  spec: {clusterIP: 10.96.0.11, selector: {app: search}, ports: [{port: 9200}]}}
";
